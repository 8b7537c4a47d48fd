-- add: new messages, and the limits that they meet.
-- requires: number, reply, volatile, queue, log, record, life, order

local add = {}

local DROP_PAGE = 100

function add.paused_error(q)
  return reply.error('PAUSED', "queue '" .. q.name .. "' takes no pushes")
end

local function length(q)
  return q.plain + server.call('ZCARD', q.prefix .. 'ready') + server.call('ZCARD', q.prefix .. 'delayed')
    + server.call('ZCARD', q.prefix .. 'inflight')
end

-- Make room for `count` messages of `bytes` in all, or return the text of the FULL error, having changed nothing.
-- Ready, delayed and in flight count; with DROPHEAD those make way that POP would give next.
function add.make_room(q, count, bytes)
  local limits = q.limits
  if not limits or not (limits.max_length or limits.max_bytes) then
    return nil
  end
  local over, over_bytes = 0, 0
  local full
  if limits.max_length then
    over = length(q) + count - limits.max_length
    if over > 0 then
      full = "queue '" .. q.name .. "' is full: max_length is " .. number.text(limits.max_length)
    end
  end
  if limits.max_bytes then
    over_bytes = queue.bytes(q) + bytes - limits.max_bytes
    if over_bytes > 0 and not full then
      full = "queue '" .. q.name .. "' is full: max_bytes is " .. number.text(limits.max_bytes)
    end
  end
  if not full or limits.overflow ~= 'DROPHEAD' or (limits.max_length and count > limits.max_length)
    or (limits.max_bytes and bytes > limits.max_bytes) then
    return full
  end
  local dropped = {}
  while over > 0 or over_bytes > 0 do
    local page = order.oldest(q, math.max(1, math.min(over, DROP_PAGE)), #dropped)
    if not page[1] then
      return full -- what is delayed or in flight is not dropped
    end
    for _, id in ipairs(page) do
      if over > 0 or over_bytes > 0 then
        dropped[#dropped + 1] = id
        over = over - 1
        over_bytes = over_bytes - server.call('HSTRLEN', q.prefix .. 'body', id)
      end
    end
  end
  for _, id in ipairs(dropped) do
    local where, meta = record.find(q, id)
    record.remove(q, id, where, meta)
    if where == 'ready' then
      q.head = id + 1 -- all that was ready before it has been dropped
    end
  end
  queue.count(q, 'dropped', #dropped)
  return nil
end

-- The id that holds a dedup key, or nil; a window that is over holds nothing, even if it was not settled yet.
function add.dedup_holder(q, key)
  local held = server.call('HGET', q.prefix .. 'dedup', key)
  if not held then
    return nil
  end
  local over_at = server.call('ZSCORE', q.prefix .. 'windows', key)
  return not (over_at and tonumber(over_at) <= q.now) and held or nil
end

-- Whether a body may be a plain message in this queue: a queue with max_bytes has to know every size.
function add.is_plain(q, body)
  return #body <= PLAIN_BYTES and not (q.limits and q.limits.max_bytes)
end

-- Add ready messages without options; q.seq moves by as many.  The caller saves the cursors.
function add.plain(q, bodies, from, to)
  local first = q.seq + 1
  local age = q.now - q.created_at
  local values = {}
  local n = 0
  local large
  for i = from, to do
    local body = bodies[i]
    if add.is_plain(q, body) then
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
  end
  log.append(q, values)
  if large then
    queue.gather(q)
    for _, i in ipairs(large) do
      local id = first + i - from
      record.create(q, id, bodies[i], {})
      record.enter(q, id, {t = q.now, n = 0, a = 0}, 'r')
    end
    queue.flush(q)
  end
  q.woken = (q.woken or 0) + plain
end

-- Add one message with the options of `o` (see functions/push); its id.
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

-- After adding: write the cursors, wake who waits.
function add.finish(q)
  queue.save(q, 'seq', q.seq, 'head', q.head, 'plain', q.plain)
  if q.woken and not queue.paused(q, 'out') then
    volatile.wake(q.name, q.woken)
  end
end
