-- pop: taking what is ready, and how a delivery looks.
-- requires: number, reply, queue, log, record, life

local pop = {}

local RECORD_BATCH = 256

-- Ready plain messages from the head on, in order and at most `want`, with ids below `below`; appends to ids, bodies, ages.
local function take_plain(q, want, below, ids, bodies, ages)
  local n = #ids
  local id = q.head
  local goal = n + want
  while n < goal and q.plain > 0 and id < below do
    local bucket = math.floor((id - 1) / SLOTS)
    local slot = id - 1 - bucket * SLOTS
    local last = math.min(SLOTS, slot + goal - n)
    local found = server.call('LRANGE', log.key(q, bucket), slot * 2, last * 2 - 1)
    local values = #found
    if values == 0 then
      id = (bucket + 1) * SLOTS + 1
    end
    for i = 1, values, 2 do
      if id >= below then
        break
      end
      if found[i] ~= '' then
        n = n + 1
        ids[n] = id
        bodies[n] = found[i + 1]
        ages[n] = found[i]
        q.plain = q.plain - 1
      end
      id = id + 1
    end
  end
  q.head = id
end

-- Deliver a record: returns its fields and body, or nil if its TTL is over.
local function take_record(q, id, vt, noack)
  local meta = record.load(q, id)
  if meta.x and meta.x <= q.now then
    life.expire(q, id, meta)
    return nil
  end
  local body = server.call('HGET', q.prefix .. 'body', id)
  record.leave(q, id, meta)
  meta.a = meta.a + 1
  meta.n = meta.n + 1
  if meta.n > 1 then
    q.redelivered = (q.redelivered or 0) + 1
  end
  if noack then
    meta.s = 'r'
    record.drop(q, id, meta)
  else
    meta.l = q.now + (vt or meta.v or q.vt)
    meta.g = q.now
    record.enter(q, id, meta, 'i', meta.l)
    queue.note_due(q, meta.l)
  end
  return meta, body
end

-- Take up to `want` messages: arrays of ids, bodies, ages (plain) and metas (records; nil for plain ones).
-- vt: ms or nil.  The caller settles first and saves the cursors after.
function pop.take(q, want, vt, noack)
  local ids, bodies, ages, metas = {}, {}, {}, {}
  if queue.paused(q, 'out') then
    return ids, bodies, ages, metas
  end
  local plain_from = {}
  local started = q.head
  while #ids < want do
    local records = server.call('ZRANGE', q.prefix .. 'ready', 0, math.min(want - #ids, RECORD_BATCH) - 1, 'WITHSCORES')
    local at = 1
    while #ids < want do
      local score = records[at + 1] and tonumber(records[at + 1])
      if q.plain > 0 and (not score or q.head < score) then
        local before = #ids
        take_plain(q, want - before, score or FOREVER, ids, bodies, ages)
        for i = before + 1, #ids do
          plain_from[#plain_from + 1] = i
        end
      elseif score then
        local id = tonumber(records[at])
        local meta, body = take_record(q, id, vt, noack)
        if meta then
          local n = #ids + 1
          ids[n] = id
          bodies[n] = body
          metas[n] = meta
        end
        at = at + 2
      else
        break
      end
    end
    if #records < 2 * RECORD_BATCH or #ids >= want then
      break
    end
  end
  local plain = #plain_from
  if plain > 0 then
    if noack then
      for _, i in ipairs(plain_from) do
        log.forget(q, log.bucket(ids[i]), 1)
      end
    else
      local deadline = q.now + (vt or q.vt)
      local text = number.text(deadline)
      local values = {}
      local n = 0
      for i = 1, plain do
        values[n + 1] = text
        values[n + 2] = ids[plain_from[i]]
        n = n + 2
      end
      for from = 1, n, 4000 do
        server.call('ZADD', q.prefix .. 'inflight', unpack(values, from, math.min(n, from + 3999)))
      end
      queue.note_due(q, deadline)
      if q.limits and q.limits.max_lease then -- the time of delivery has to be known
        for _, i in ipairs(plain_from) do
          local meta = record.of_inflight(q, ids[i])
          meta.l = deadline
          meta.g = q.now
          record.save(q, ids[i], meta)
          metas[i] = meta
        end
      end
    end
  end
  if q.head ~= started then
    q.moved = true
  end
  return ids, bodies, ages, metas
end

-- After taking `count` messages.
function pop.finish(q, count)
  if count > 0 then
    queue.save(q, 'head', number.text(q.head), 'plain', q.plain, 'delivered', number.text(q.delivered + count))
    queue.count(q, 'redelivered', q.redelivered or 0)
    q.moved = false
  end
  life.finish(q)
end

-- One delivery as a value.  with_meta: all of WITHMETA.  queue_name: MPOP's `queue`, or nil.
function pop.delivery(q, id, body, age, meta, vt, noack, with_meta, queue_name)
  local text = number.text(id)
  local items = {}
  if queue_name then
    items = {'queue', queue_name}
  end
  local function put(name, value)
    items[#items + 1] = name
    items[#items + 1] = value
  end
  put('id', text)
  put('body', body)
  put('attempts', meta and meta.a or 1)
  put('receipt', noack and false or text .. '-' .. number.text(meta and meta.n or 1))
  if with_meta then
    local enqueued_at = meta and meta.t or log.enqueued_at(q, age)
    put('enqueued_at', enqueued_at)
    put('deadline', not noack and (meta and meta.l or q.now + (vt or q.vt)))
    put('priority', meta and meta.p or 0)
    put('headers', {map = meta and meta.h or {}})
    put('age_ms', math.max(0, q.now - enqueued_at))
    put('last_error', meta and meta.e or false)
  elseif meta and meta.h then
    put('headers', {map = meta.h})
  end
  return {map = items}
end
