-- add: new messages, and the limits that they meet.
-- requires: cache, number, reply, volatile, queue, log, record, life, order

local add = {}

-- Headers of all messages that one call adds, and their bytes: each message has them for itself.
local MAX_HEADERS = 1000000
local MAX_HEADER_BYTES = 67108864

-- What lies over a limit that was lowered makes way in steps of about as many messages.
local TRIM_STEP = 2000
local DROP_PAGE = 500
-- How often a call that finds the queue full does, before it refuses, what has fallen due.
local MOST_STEPS = 2

function add.paused_error(q)
  return reply.error('PAUSED', "queue '" .. q.name .. "' takes no pushes: it is paused (see VALQ.PAUSE)")
end

-- Before pushes: do what is due.  In a queue that takes none now the call ends with PAUSED (see guard).
function add.settle(q)
  life.settle(q, life.BRIEFLY)
  if queue.paused(q, 'in') then
    queue.finish(q)
    error(add.paused_error(q))
  end
end

-- The text of a FULL error; of a push that would not even fit into an empty queue it says so, for waiting does not help.
local function full_text(q, limit, most, coming)
  local text = "queue '" .. q.name .. "' is full: " .. limit .. ' is ' .. number.text(most)
  return coming > most and text .. ', and ' .. number.text(coming) .. ' come at once' or text
end

-- By how much the queue would be over its limits with `count` more messages of `bytes` in all: messages, bytes, and the
-- text of the FULL error, if it would be.  Ready, delayed and in flight count.
local function excess(q, count, bytes)
  local bounds = q.limits
  local over, over_bytes = 0, 0
  local full
  if bounds.max_length then
    local length = queue.ready(q) + server.call('ZCARD', q.prefix .. 'delayed') + server.call('ZCARD', q.prefix .. 'inflight')
    over = length + count - bounds.max_length
    if over > 0 then
      full = full_text(q, 'MAXLEN', bounds.max_length, count)
    end
  end
  if bounds.max_bytes then
    over_bytes = queue.bytes(q) + bytes - bounds.max_bytes
    if over_bytes > 0 and not full then
      full = full_text(q, 'MAXBYTES', bounds.max_bytes, bytes)
    end
  end
  return over, over_bytes, full
end

-- The oldest ready messages, as many as make a queue fit again that is over its limits by `over` messages and `over_bytes`.
-- Fewer when there are no more, or when they are at least `most` and make up for the `count` messages of `bytes` that come.
-- Returns their ids; whether more are left that must go; whether it does not fit even without all there are.
local function to_drop(q, over, over_bytes, most, count, bytes)
  local ids, freed = {}, 0
  local not_counted = 0 -- bytes of plain messages that are not records yet: see compact
  local function enough()
    return #ids >= over and freed >= over_bytes
  end
  local function done()
    return enough() or (#ids >= most and #ids >= count and freed + not_counted >= bytes)
  end
  local next_page = order.oldest(q)
  while not done() do
    local page = next_page(math.min(DROP_PAGE, math.max(over - #ids, #ids, 1)))
    if not page[1] then
      return ids, false, true
    end
    for _, id in ipairs(page) do
      if done() then
        break
      end
      ids[#ids + 1] = id
      if q.limits.max_bytes then
        local size = server.call('HSTRLEN', q.prefix .. 'body', id)
        freed = freed + size
        if size == 0 and q.plain > 0 then
          local _, body = log.read(q, id)
          not_counted = not_counted + #(body or '')
        end
      end
    end
  end
  return ids, not enough(), false
end

-- Of ready messages without a record's fields, the plain ones; what an index names was a record, and its fields are lost.
local function without_lost(q, ids)
  if not ids[1] or q.may_have_ready == 0 then
    return ids
  end
  local plain, lost = {}, {}
  for i, score in ipairs(server.call('ZMSCORE', q.prefix .. 'ready', unpack(ids))) do
    table.insert(score and lost or plain, ids[i])
  end
  record.lose(q, 'ready', lost)
  return plain
end

-- Drop these ready messages: the oldest ones, upwards.
local function drop(q, ids)
  for from = 1, #ids, DROP_PAGE do
    local page = {}
    for i = from, math.min(#ids, from + DROP_PAGE - 1) do
      page[#page + 1] = number.text(ids[i])
    end
    local records, fields, others = record.split(q, page)
    record.drop_all(q, records, fields)
    local plain = without_lost(q, others)
    log.forget_all(q, plain)
    if plain[1] then
      q.plain = q.plain - #plain
      q.head = tonumber(plain[#plain]) + 1 -- all plain ones before it are dropped
      q.changed = true
    end
  end
  queue.count(q, 'dropped', #ids)
end

-- Make room for `count` messages of `bytes` in all, or return the text of the FULL error, having changed nothing.
-- With DROPHEAD the oldest ready messages make way: all that must, when the queue was within its limits; when it was not,
-- for they were lowered, a call drops TRIM_STEP, or what it brings if that is more, and the sweep drops the rest.  keeps:
-- nothing makes way.
function add.make_room(q, count, bytes, keeps)
  local bounds = q.limits
  if not bounds or not (bounds.max_length or bounds.max_bytes) then
    return nil
  end
  local over, over_bytes, full = excess(q, count, bytes)
  while full and q.behind and q.steps < MOST_STEPS do -- what is over does not count
    q.steps = q.steps + 1
    life.settle(q, life.FULLY)
    over, over_bytes, full = excess(q, count, bytes)
  end
  if not full or keeps or bounds.overflow ~= 'DROPHEAD' or (bounds.max_bytes and bytes > bounds.max_bytes)
    or over > queue.ready(q) then -- what is delayed or in flight is not dropped
    return full
  end
  local most = TRIM_STEP - (q.counts.dropped or 0)
  local ids, more, in_vain = to_drop(q, over, over_bytes, most, bounds.max_length and count or 0,
    bounds.max_bytes and bytes or 0)
  if in_vain then
    return full
  end
  drop(q, ids)
  if more then
    bounds.trim = true
    queue.save_limits(q)
    volatile.note(q.name, q.now)
  end
  return nil
end

-- A step of dropping what a push has left over the limits; whether there may be more.
function add.trim(q)
  local bounds = q.limits
  if not (bounds and bounds.trim) then
    return false
  end
  local over, over_bytes, full = excess(q, 0, 0)
  local ids, more = {}, false
  if full and bounds.overflow == 'DROPHEAD' then
    ids, more = to_drop(q, over, over_bytes, TRIM_STEP, 0, 0)
    drop(q, ids)
  end
  if not more then
    bounds.trim = nil
    queue.save_limits(q)
  end
  return more
end

-- Whether a message that holds its key until it is done is done, though that was not settled yet.
local function is_done(q, id)
  local meta = record.load(q, id)
  if not meta or (meta.x and meta.x <= q.now and meta.s ~= 'i') then
    return true
  end
  return meta.s == 'i' and meta.l <= q.now and ((meta.x and meta.x <= q.now)
    or meta.a >= (meta.m or queue.rules(q)))
end

-- The id that holds a dedup key, or nil; what is over holds nothing, even if it was not settled yet.
function add.dedup_holder(q, key)
  local held = server.call('HGET', q.prefix .. 'dedup', key)
  if not held then
    return nil
  end
  local over_at = server.call('ZSCORE', q.prefix .. 'windows', key)
  if over_at then
    return tonumber(over_at) > q.now and held or nil
  end
  if tonumber(held) > q.seq then -- added by this call
    return held
  end
  return not is_done(q, held) and held or nil -- nothing holds a key whose message is lost, either
end

-- Add ready messages without options; q.seq moves by as many.  The caller saves the cursors.
function add.plain(q, bodies, from, to)
  local first = q.seq + 1
  -- The largest body of a plain message; a queue with max_bytes has to know every size, and has none.
  local most_bytes = q.limits and q.limits.max_bytes and -1 or queue.PLAIN_BYTES
  local age = q.now - q.created_at
  local values = {}
  local n = 0
  local large
  for i = from, to do
    local body = bodies[i]
    if #body <= most_bytes then
      values[n + 1] = age
      values[n + 2] = body
    else
      values[n + 1] = ''
      values[n + 2] = ''
      large = large or {}
      large[#large + 1] = i
    end
    n = n + 2
  end
  local plain = n / 2 - (large and #large or 0)
  if plain > 0 then
    if q.plain == 0 then
      q.head = first
    end
    q.plain = q.plain + plain
    q.changed = true
  end
  log.append(q, values)
  if large then
    queue.gather(q)
    for _, i in ipairs(large) do
      local id, meta = first + i - from, {t = q.now, n = 0, a = 0}
      record.create(q, id, bodies[i], meta)
      record.enter(q, id, meta, 'r')
    end
    queue.flush(q)
  end
  q.wakes = true
end

-- The options and headers of pushes, as in functions/push, from values[at] on: a table for add.with_options, or nil if there
-- are none; then what follows them.
function add.options(values, at)
  local given = {}
  local some = false
  local count = tonumber(values[at])
  for i = at + 1, at + 2 * count, 2 do
    given[values[i]] = values[i + 1]
    some = true
  end
  at = at + 2 * count + 1
  local fields = 2 * tonumber(values[at])
  if not (fields >= 0 and at + fields <= #values) then -- who calls functions himself may say anything
    error('ERR headers are missing', 0)
  end
  if not some and fields == 0 then
    return nil, at + 1
  end
  return {
    delay = tonumber(given.delay),
    at = tonumber(given.at),
    vt = tonumber(given.vt),
    ttl = tonumber(given.ttl),
    max_attempts = tonumber(given.max_attempts),
    priority = tonumber(given.priority),
    dedup = given.dedup,
    window = tonumber(given.dedup_window),
    until_done = given.dedup_until_done == '1',
    headers = fields > 0 and {unpack(values, at + 1, at + fields)} or nil,
  }, at + fields + 1
end

-- End a call that would give `count` messages these headers, if that makes too many, or too much; as the daemon does.
function add.bound_headers(headers, count)
  local bytes = 0
  for i = 1, #headers do
    bytes = bytes + #headers[i]
  end
  if count > 1 and (count * #headers / 2 > MAX_HEADERS or count * bytes > MAX_HEADER_BYTES) then
    error('ERR too many headers for so many messages', 0)
  end
end

local function unpacked(packed)
  return (add.options(cmsgpack.unpack(packed), 1))
end

-- Options as clients repeat them, by their packed form.
local repeated = cache.of(unpacked, 1000)
local MAX_REPEATED_BYTES = 256

-- The same of a packed array.
function add.packed_options(packed)
  return #packed <= MAX_REPEATED_BYTES and repeated(packed) or unpacked(packed)
end

-- Add one message with these options; its id.
function add.with_options(q, body, o)
  local meta = {t = q.now, n = 0, a = 0, p = o.priority, v = o.vt, m = o.max_attempts, h = o.headers}
  if o.ttl then
    meta.x = q.now + o.ttl
  end
  local id = record.add(q, body, meta)
  if o.dedup then
    meta.k = o.dedup
    server.call('HSET', q.prefix .. 'dedup', o.dedup, number.text(id))
    if o.until_done then
      meta.u = 1
      server.call('ZREM', q.prefix .. 'windows', o.dedup)
    else
      local over_at = q.now + o.window
      server.call('ZADD', q.prefix .. 'windows', number.text(over_at), o.dedup)
      queue.note_due(q, over_at)
    end
  end
  local due = o.at or (o.delay and q.now + o.delay)
  if due and due > q.now then
    life.delay(q, id, meta, due)
  else
    record.enter(q, id, meta, 'r')
  end
  return id
end
