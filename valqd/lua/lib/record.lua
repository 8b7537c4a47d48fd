-- record: messages with more to them than a body: body, packed fields and one index entry each.
-- requires: number, queue, log
--
-- Fields of a record: t enqueued_at ms, n deliveries so far (the receipt's n), a attempts used, s state (r ready, i in
-- flight, d delayed, q dlq), p priority, v visibility timeout ms, x TTL over at ms, m max attempts, k dedup key, u held
-- until done, h headers (field, value ...), e last error, f failed at ms, D died at ms, c cancelled, l lease's end ms,
-- g delivered at ms, w why it died, while it waits to be moved to the dead letter queue that it should be in, b size of its
-- body (records of before have none).

local record = {}

record.INDEX = {r = 'ready', i = 'inflight', d = 'delayed', q = 'dlq'} -- its state's name, and its key's
record.PRIORITY_STEP = 281474976710656
record.MAX_PRIORITY = 31
-- Once a reply of several messages weighs as much, it has no more of them (see record.weight).
record.MOST_BYTES = 67108864
record.HEADER_BYTES = 256

function record.load(q, id)
  local packed = server.call('HGET', q.prefix .. 'meta', id)
  return packed and cmsgpack.unpack(packed)
end

function record.save(q, id, meta)
  q.may_have_records = 1
  q.changed = true
  queue.put(q, 'HSET', 'meta', number.id(id), cmsgpack.pack(meta))
end

-- Where a ready record stands: by priority, then by id.
local function ready_score(id, meta)
  return id - (meta.p or 0) * record.PRIORITY_STEP
end

-- Put a record (that is in no index) into `state`, at `score` ms, or by priority when ready; saves it.
function record.enter(q, id, meta, state, score)
  meta.s = state
  if state == 'r' then
    score = ready_score(id, meta)
    q.wakes = true
    q.may_have_ready = 1
    q.changed = true
  else
    score = number.arg(score)
  end
  queue.put(q, 'ZADD', record.INDEX[state], score, number.id(id))
  record.save(q, id, meta)
end

function record.leave(q, id, meta)
  server.call('ZREM', q.prefix .. record.INDEX[meta.s], id)
end

-- A new record.  Its body is counted towards max_bytes.
function record.create(q, id, body, meta)
  queue.put(q, 'HSET', 'body', number.id(id), body)
  meta.b = #body
  queue.count(q, 'bytes', meta.b)
  if meta.x then
    queue.put(q, 'ZADD', 'expiry', number.text(meta.x), number.text(id))
    queue.note_due(q, meta.x)
  end
end

-- What a message adds to a reply of several: headers take more time than their bytes say.
function record.weight(body_bytes, headers)
  local weight = body_bytes + #headers * record.HEADER_BYTES
  for _, text in ipairs(headers) do
    weight = weight + (type(text) == 'string' and #text or 0)
  end
  return weight
end

-- How large its body is.  What is written there, and is no size, is not believed.
function record.size(q, id, meta)
  local size = meta.b
  if type(size) == 'number' and size >= 0 and size < math.huge then
    return size
  end
  return server.call('HSTRLEN', q.prefix .. 'body', id)
end

-- It does not count towards max_bytes any more.
function record.uncount(q, id, meta)
  queue.count(q, 'bytes', -record.size(q, id, meta))
end

-- A new message that is a record from the start, in no index yet; its id.  While q.gathered is a table, record.flush is
-- to follow.
function record.add(q, body, meta)
  q.slotless = q.slotless + 1
  local id = q.seq + q.slotless
  record.create(q, id, body, meta)
  if not q.gathered then
    record.flush(q)
  end
  return id
end

-- Write what was gathered, and the empty slots of the records that were added meanwhile.
function record.flush(q)
  local slots = {}
  for i = 1, 2 * q.slotless do
    slots[i] = ''
  end
  q.slotless = 0
  log.append(q, slots)
  queue.flush(q)
end

-- A dedup key held UNTILDONE is free again when its message is done; one held for a window outlives its message.
function record.free_dedup(q, id, meta)
  if meta.k and meta.u and server.call('HGET', q.prefix .. 'dedup', meta.k) == number.text(id) then
    server.call('HDEL', q.prefix .. 'dedup', meta.k)
  end
end

-- Records are gone for good: ids (as text) and, by the same index, their fields.
function record.drop_all(q, ids, metas)
  local by_index, expiring, forwarded = {}, {}, {}
  for i, id in ipairs(ids) do
    local meta = metas[i]
    local index = record.INDEX[meta.s]
    by_index[index] = by_index[index] or {}
    table.insert(by_index[index], id)
    if meta.s ~= 'q' then
      record.uncount(q, id, meta)
    end
    if meta.x then
      expiring[#expiring + 1] = id
    end
    if meta.w then
      forwarded[#forwarded + 1] = id
    end
    record.free_dedup(q, id, meta)
  end
  for index, members in pairs(by_index) do
    queue.write(q, 'ZREM', index, members)
  end
  queue.write(q, 'HDEL', 'body', ids)
  queue.write(q, 'HDEL', 'meta', ids)
  queue.write(q, 'ZREM', 'expiry', expiring)
  queue.write(q, 'ZREM', 'forward', forwarded)
end

-- What an index names, though its fields are lost (evicted, or deleted by hand), is no message any more.
function record.lose(q, index, ids)
  queue.write(q, 'ZREM', index, ids)
  queue.write(q, 'HDEL', 'body', ids)
  queue.write(q, 'ZREM', 'expiry', ids)
end

-- Of the ids of an index those that are records, and their fields; the others are lost.
function record.whole(q, index, ids)
  local records, fields, lost = record.split(q, ids)
  record.lose(q, index, lost)
  return records, fields
end

-- One record is gone for good.
function record.drop(q, id, meta)
  record.drop_all(q, {number.text(id)}, {meta})
end

-- The fields of records, by the index of their ids; false where an id has none.
function record.load_all(q, ids)
  local metas = {}
  for from = 1, #ids, 1000 do
    local to = math.min(#ids, from + 999)
    local packed = server.call('HMGET', q.prefix .. 'meta', unpack(ids, from, to))
    for i = 1, to - from + 1 do
      metas[from + i - 1] = packed[i] and cmsgpack.unpack(packed[i])
    end
  end
  return metas
end

-- Which of these messages (ids as text) are records; their fields, by the same index; and which are plain.
function record.split(q, ids)
  local records, fields, plain = {}, {}, {}
  local metas = record.load_all(q, ids)
  for i, id in ipairs(ids) do
    if metas[i] then
      records[#records + 1] = id
      fields[#fields + 1] = metas[i]
    else
      plain[#plain + 1] = id
    end
  end
  return records, fields, plain
end

-- Make records of plain messages in flight (and leave them there): metas[i] is set for every ids[i] that has none.
function record.of_all_inflight(q, ids, metas)
  local buckets = {}
  for i, id in ipairs(ids) do
    if not metas[i] then
      local bucket = log.bucket(id)
      buckets[bucket] = buckets[bucket] or {}
      table.insert(buckets[bucket], i)
    end
  end
  for bucket, members in pairs(buckets) do
    local first, last = queue.SLOTS, 0
    local moved = 0 -- not those of which nothing is left: their keys were evicted or deleted
    for _, i in ipairs(members) do
      local slot = ids[i] - bucket * queue.SLOTS
      first, last = math.min(first, slot), math.max(last, slot)
    end
    local found = server.call('LRANGE', log.key(q, bucket), first * 2 - 2, last * 2 - 1)
    for _, i in ipairs(members) do
      local at = (ids[i] - bucket * queue.SLOTS - first) * 2
      local age = found[at + 1]
      if age and age ~= '' then
        metas[i] = {t = log.enqueued_at(q, age), n = 1, a = 1, s = 'i'}
        record.create(q, ids[i], found[at + 2], metas[i])
        moved = moved + 1
      end
    end
    if moved > 0 then
      log.forget(q, bucket, moved)
    end
  end
end

-- Make a record of a plain message that is in flight (and leave it there).
function record.of_inflight(q, id)
  local metas = {}
  record.of_all_inflight(q, {id}, metas)
  if metas[1] then
    record.save(q, id, metas[1])
  else
    record.lose(q, 'inflight', {id})
  end
  return metas[1]
end

-- Make a record of a plain message that is ready (and leave it so).
function record.of_ready(q, id)
  local age, body = log.read(q, id)
  if not age then
    return nil
  end
  local meta = {t = log.enqueued_at(q, age), n = 0, a = 0}
  log.clear(q, id)
  record.create(q, id, body, meta)
  record.enter(q, id, meta, 'r')
  return meta
end

-- The state of message `id`, by its name, and its fields if it is a record; nil if there is no such message.
function record.find(q, id)
  local meta = record.load(q, id)
  if meta then
    return record.INDEX[meta.s], meta
  end
  if id > q.seq or id < 1 then
    return nil
  end
  if server.call('ZSCORE', q.prefix .. 'inflight', id) then
    return 'inflight'
  end
  if id >= q.head and log.read(q, id) then
    return 'ready'
  end
  return nil
end

-- Remove message `id` from whatever state it is in.  state, meta: as record.find gave them.
function record.remove(q, id, state, meta)
  if meta then
    record.drop(q, id, meta)
  elseif state == 'inflight' then
    server.call('ZREM', q.prefix .. 'inflight', id)
    log.forget(q, log.bucket(id), 1)
  else
    log.clear(q, id)
  end
end
