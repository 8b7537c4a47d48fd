-- log: the buckets in which plain messages lie, and their count of slots that are gone.
-- requires: queue

local log = {}

-- How many buckets are asked about at once.
local STRIDE = 500

function log.bucket(id)
  return math.floor((id - 1) / queue.SLOTS)
end

function log.key(q, bucket)
  return q.prefix .. 'log:' .. bucket
end

-- `count` more slots of a bucket are of no use; the last one takes the bucket with it.
function log.forget(q, bucket, count)
  if server.call('HINCRBY', q.prefix .. 'gone', bucket, count) >= queue.SLOTS then
    server.call('UNLINK', log.key(q, bucket))
    server.call('HDEL', q.prefix .. 'gone', bucket)
  end
end

-- The slots of these messages are of no use any more.
function log.forget_all(q, ids)
  local slots = queue.SLOTS
  local buckets = {}
  for i = 1, #ids do
    local before = ids[i] - 1
    local bucket = (before - before % slots) / slots -- as log.bucket, without calls: this is hot
    buckets[bucket] = (buckets[bucket] or 0) + 1
  end
  for bucket, count in pairs(buckets) do
    log.forget(q, bucket, count)
  end
end

-- Give ids q.seq+1 ... to the `values` (age, body, age, body ...; two empty ones for a record) and move q.seq.
function log.append(q, values)
  local slots = queue.SLOTS
  local total = #values
  local done = 0
  while done < total do
    local bucket = math.floor(q.seq / slots)
    local slot = q.seq - bucket * slots
    local count = math.min((slots - slot) * 2, total - done)
    if slot == 0 then
      server.call('HSET', q.prefix .. 'gone', bucket, 0)
    end
    server.call('RPUSH', log.key(q, bucket), unpack(values, done + 1, done + count))
    local empty = 0
    for i = done + 1, done + count, 2 do
      if values[i] == '' then
        empty = empty + 1
      end
    end
    if empty > 0 then
      log.forget(q, bucket, empty)
    end
    done = done + count
    q.seq = q.seq + count / 2
  end
end

-- Age and body of a plain message's slot; nil when the slot is empty or its bucket gone.
function log.read(q, id)
  local bucket = log.bucket(id)
  local at = (id - 1 - bucket * queue.SLOTS) * 2
  local pair = server.call('LRANGE', log.key(q, bucket), at, at + 1)
  if not pair[1] or pair[1] == '' then
    return nil
  end
  return pair[1], pair[2]
end

-- Empty the slot of a ready plain message, so that no POP finds it.
function log.clear(q, id)
  local bucket = log.bucket(id)
  local at = (id - 1 - bucket * queue.SLOTS) * 2
  local key = log.key(q, bucket)
  server.call('LSET', key, at, '')
  server.call('LSET', key, at + 1, '')
  q.plain = q.plain - 1
  q.moved = true
  log.forget(q, bucket, 1)
end

-- Ids of ready plain messages, bucket by bucket from `bucket` on: upwards (step 1), or downwards, the last ones first (-1).
-- At least `want` of them, if there are, and the rest of a bucket.
function log.ready_ids(q, bucket, step, want)
  local ids = {}
  local first, last = log.bucket(q.head), log.bucket(q.seq)
  while #ids < want and bucket >= first and bucket <= last do
    local names = {}
    for other = bucket, math.max(first, math.min(last, bucket + step * (STRIDE - 1))), step do
      names[#names + 1] = other
    end
    local existing = server.call('HMGET', q.prefix .. 'gone', unpack(names))
    for i, other in ipairs(names) do
      if existing[i] and #ids < want then
        local from = math.max(q.head, other * queue.SLOTS + 1)
        local found = server.call('LRANGE', log.key(q, other), (from - 1 - other * queue.SLOTS) * 2, -1)
        local id = step > 0 and from or from + #found / 2 - 1
        for slot = step > 0 and 1 or #found - 1, step > 0 and #found or 1, 2 * step do
          if found[slot] ~= '' then
            ids[#ids + 1] = id
          end
          id = id + step
        end
      end
    end
    bucket = names[#names] + step
  end
  return ids
end

-- How many ready plain messages each of the buckets `from` to `last` holds (from the head's on), of the first STRIDE of
-- them: all that are in use of a bucket after the head's are ready.
function log.count_ready(q, from, last)
  local counts = {}
  for bucket = from, math.min(last, from + STRIDE - 1) do
    counts[#counts + 1] = bucket
  end
  local gone = server.call('HMGET', q.prefix .. 'gone', unpack(counts))
  for i, bucket in ipairs(counts) do
    if not gone[i] then
      counts[i] = 0
    elseif q.head > bucket * queue.SLOTS + 1 then
      local ids = log.ready_ids(q, bucket, 1, 1) -- of the first bucket that has some
      counts[i] = ids[1] and log.bucket(ids[1]) == bucket and #ids or 0
    else
      counts[i] = math.min(queue.SLOTS, q.seq - bucket * queue.SLOTS) - gone[i]
    end
  end
  return counts
end

-- Unix ms at which a plain message was pushed.
function log.enqueued_at(q, age)
  return q.created_at + tonumber(age)
end

-- Call visit(id, age, body) for ready plain messages from id `from` on, until it returns false.
function log.each_ready(q, from, visit)
  local id = math.max(from, q.head)
  local at_head = id == q.head
  while id <= q.seq do
    local bucket = log.bucket(id)
    local at = (id - 1 - bucket * queue.SLOTS) * 2
    local pairs_found = server.call('LRANGE', log.key(q, bucket), at, -1)
    if not pairs_found[1] then
      id = (bucket + 1) * queue.SLOTS + 1
    end
    for i = 1, #pairs_found, 2 do
      id = id + 1
      if pairs_found[i] ~= '' then
        if at_head then -- nothing before this one is ready: the next walk need not look there
          at_head = false
          q.moved = q.moved or id - 1 > q.head
          q.head = id - 1
        end
        if visit(id - 1, pairs_found[i], pairs_found[i + 1]) == false then
          return
        end
      end
    end
  end
end
