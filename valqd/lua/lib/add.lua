-- add: new messages, and the limits that they meet.
-- requires: number, reply, volatile, queue, log, record, life

local add = {}

function add.paused_error(q)
  return reply.error('PAUSED', "queue '" .. q.name .. "' takes no pushes")
end

local function length(q)
  return q.plain + server.call('ZCARD', q.prefix .. 'ready') + server.call('ZCARD', q.prefix .. 'delayed')
    + server.call('ZCARD', q.prefix .. 'inflight')
end

-- Drop the ready message that POP would give next.  false if none is ready.
local function drop_head(q)
  local first = server.call('ZRANGE', q.prefix .. 'ready', 0, 0, 'WITHSCORES')
  local plain_id
  if q.plain > 0 then
    log.each_ready(q, q.head, function(id)
      plain_id = id
      return false
    end)
  end
  if first[1] and not (plain_id and plain_id < tonumber(first[2])) then
    local id = tonumber(first[1])
    record.drop(q, id, record.load(q, id))
  elseif plain_id then
    q.head = plain_id
    log.clear(q, plain_id)
  else
    return false
  end
  queue.count(q, 'dropped', 1)
  return true
end

local function over(q, limits, count, bytes)
  if limits.max_length and length(q) + count > limits.max_length then
    return "queue '" .. q.name .. "' is full: max_length is " .. number.text(limits.max_length)
  end
  if limits.max_bytes then
    local held = tonumber(server.call('HGET', q.key, 'bytes') or 0)
    if held + bytes > limits.max_bytes then
      return "queue '" .. q.name .. "' is full: max_bytes is " .. number.text(limits.max_bytes)
    end
  end
  return nil
end

-- Make room for `count` messages of `bytes` in all, or return the text of the FULL error, having changed nothing.
function add.make_room(q, count, bytes)
  local limits = q.limits
  if not limits or not (limits.max_length or limits.max_bytes) then
    return nil
  end
  local full = over(q, limits, count, bytes)
  if not full or limits.overflow ~= 'DROPHEAD' then
    return full
  end
  if (limits.max_length and count > limits.max_length - length(q) + q.plain + server.call('ZCARD', q.prefix .. 'ready'))
    or (limits.max_bytes and bytes > limits.max_bytes) then
    return full -- dropping all that is ready would not be enough
  end
  while full do
    if not drop_head(q) then
      return full
    end
    full = over(q, limits, count, bytes)
  end
  return nil
end

-- Whether a body may be a plain message in this queue: a queue with max_bytes has to know every size.
function add.is_plain(q, body)
  return #body <= PLAIN_BYTES and not (q.limits and q.limits.max_bytes)
end

-- Add ready messages without options; q.seq moves by as many.  The caller saves the cursors.
function add.plain(q, bodies, from, to)
  local first = q.seq + 1
  local age = number.text(q.now - q.created_at)
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
  for _, i in ipairs(large or {}) do
    local id = first + i - from
    record.create(q, id, bodies[i], {})
    record.enter(q, id, {t = q.now, n = 0, a = 0}, 'r')
  end
  q.woken = (q.woken or 0) + plain
end

-- Add one message with the options of `o` (see functions/push); its id.
function add.with_options(q, body, o)
  log.append(q, {'', ''})
  local id = q.seq
  local meta = {t = q.now, n = 0, a = 0, p = o.priority, v = o.vt, m = o.max_attempts, h = o.headers}
  if o.ttl then
    meta.x = q.now + o.ttl
  end
  if o.dedup then
    meta.k = o.dedup
    server.call('HSET', q.prefix .. 'dedup', o.dedup, number.text(id))
    if o.until_done then
      meta.u = 1
    else
      local over_at = q.now + o.window
      server.call('ZADD', q.prefix .. 'windows', number.text(over_at), o.dedup)
      queue.note_due(q, over_at)
    end
  end
  record.create(q, id, body, meta)
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
  queue.save(q, 'seq', number.text(q.seq), 'head', number.text(q.head), 'plain', q.plain)
  if q.woken and not queue.paused(q, 'out') then
    volatile.wake(q.name, q.woken)
  end
end
