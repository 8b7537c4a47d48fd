-- log: the buckets in which plain messages lie, and their count of slots that are gone.
-- requires: queue

local log = {}

-- Buckets that are asked about at once: first few, since most gaps are short.
local FIRST_STRIDE = 8
local STRIDE = 500

function log.bucket(id)
  return math.floor((id - 1) / queue.SLOTS)
end

-- The bucket of a message, and before how many elements of it lies its slot.
local function place_of(id)
  local bucket = log.bucket(id)
  return bucket, (id - 1 - bucket * queue.SLOTS) * 2
end

local last_prefix, last_bucket, last_key

function log.key(q, bucket)
  if bucket ~= last_bucket or q.prefix ~= last_prefix then -- most calls want the last one again
    last_prefix, last_bucket = q.prefix, bucket
    last_key = q.prefix .. 'log:' .. bucket
  end
  return last_key
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

-- A bucket was not as long as it must be (keys of the queue were evicted): make it anew, `at` empty elements and these.
local function set_right(q, bucket, at, ...)
  local key = log.key(q, bucket)
  local before = {}
  for i = 1, at do
    before[i] = ''
  end
  server.call('UNLINK', key)
  if at > 0 then
    server.call('RPUSH', key, unpack(before))
  end
  server.call('RPUSH', key, ...)
  server.call('HINCRBY', q.prefix .. 'gone', bucket, 0) -- this field may be lost too
end

-- Give ids q.seq+1 ... to the `values` (age, body, age, body ...; two empty ones for a record) and move q.seq.
function log.append(q, values)
  local total = #values
  local done = 0
  while done < total do
    local bucket, at = place_of(q.seq + 1)
    local count = math.min(2 * queue.SLOTS - at, total - done)
    if at == 0 then
      server.call('HSET', q.prefix .. 'gone', bucket, 0)
    end
    if server.call('RPUSH', log.key(q, bucket), unpack(values, done + 1, done + count)) ~= at + count then
      set_right(q, bucket, at, unpack(values, done + 1, done + count))
    end
    q.seq = q.seq + count / 2 -- before what may fail: the log has them
    q.changed = true
    queue.given_key, queue.given_seq = q.key, q.seq
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
  end
end

-- Age and body of a plain message's slot; nil when the slot is empty or its bucket gone.
function log.read(q, id)
  local bucket, at = place_of(id)
  local pair = server.call('LRANGE', log.key(q, bucket), at, at + 1)
  if not pair[1] or pair[1] == '' then
    return nil
  end
  return pair[1], pair[2]
end

-- Empty the slot of a ready plain message, so that no POP finds it.
function log.clear(q, id)
  local bucket, at = place_of(id)
  local key = log.key(q, bucket)
  server.call('LSET', key, at, '')
  server.call('LSET', key, at + 1, '')
  q.plain = q.plain - 1
  q.changed = true
  log.forget(q, bucket, 1)
end

-- An iterator over the buckets that are there, from `bucket` on, upwards (step 1) or downwards (-1): each one's number, and
-- how many of its slots are gone.  Of those that have gone, no more are asked about than are there: then it is known which.
function log.buckets(q, bucket, step)
  local last = step > 0 and log.bucket(q.seq) or 0
  local stride = FIRST_STRIDE
  local in_vain = 0
  local far -- behind a gap longer than that: all that are there, the next one last
  local found, at = {}, 0
  local function look_ahead()
    local names = {}
    while #names < stride do
      local name = bucket
      if far then
        name = table.remove(far)
      end
      if not name or (last - name) * step < 0 then
        break
      end
      names[#names + 1] = name
      bucket = name + step
    end
    if not names[1] then
      return false
    end
    for i, gone in ipairs(server.call('HMGET', q.prefix .. 'gone', unpack(names))) do
      if gone then
        found[#found + 1] = {names[i], tonumber(gone)}
      end
    end
    in_vain = found[1] and 0 or in_vain + #names
    if in_vain > server.call('HLEN', q.prefix .. 'gone') then
      in_vain = 0
      far = {}
      for _, text in ipairs(server.call('HKEYS', q.prefix .. 'gone')) do
        local name = tonumber(text)
        if (name - bucket) * step >= 0 then
          far[#far + 1] = name
        end
      end
      table.sort(far, function(a, b)
        return (a - b) * step > 0
      end)
    end
    stride = STRIDE
    return true
  end
  return function()
    at = at + 1
    if not found[at] then
      found, at = {}, 1
      repeat until found[1] or not look_ahead()
    end
    if found[at] then
      return found[at][1], found[at][2]
    end
  end
end

-- The first id behind `bucket` whose bucket is there; behind the last id if there is none.
function log.skip_gap(q, bucket)
  local next_bucket = log.buckets(q, bucket + 1, 1)
  local other = next_bucket()
  while other and server.call('EXISTS', log.key(q, other)) == 0 do -- its key was removed: one walk for all of these
    other = next_bucket()
  end
  return other and other * queue.SLOTS + 1 or q.seq + 1
end

-- Ids of ready plain messages in a bucket, upwards, those up to `last`.
local function ready_in(q, bucket, last)
  local ids = {}
  local bucket_before = bucket * queue.SLOTS
  local before = math.max(q.head - 1, bucket_before)
  local found = server.call('LRANGE', log.key(q, bucket), (before - bucket_before) * 2, (last - bucket_before) * 2 - 1)
  for slot = 1, #found, 2 do
    before = before + 1
    if found[slot] ~= '' then
      ids[#ids + 1] = before
    end
  end
  return ids
end

-- Ids of ready plain messages, bucket by bucket from `bucket` on: upwards (step 1), or downwards, the last ones first (-1).
-- At least `want` of them, which are there, and the rest of a bucket.
function log.ready_ids(q, bucket, step, want)
  local ids = {}
  local next_bucket = log.buckets(q, bucket, step)
  while #ids < want do
    local other = next_bucket()
    if not other then
      break
    end
    local found = ready_in(q, other, q.seq)
    for i = step > 0 and 1 or #found, step > 0 and #found or 1, step do
      ids[#ids + 1] = found[i]
    end
  end
  return ids
end

-- How many ready plain messages with ids up to `last` a bucket holds of which `gone` slots are gone, the head's or one after
-- it: all that are in use of one after the head's are ready, and it is read only for a part of it.
function log.count_ready(q, bucket, gone, last)
  local bucket_before = bucket * queue.SLOTS
  local bucket_last = math.min(bucket_before + queue.SLOTS, q.seq)
  if q.head > bucket_before + 1 or last < bucket_last then
    return #ready_in(q, bucket, last)
  end
  return bucket_last - bucket_before - gone
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
    local bucket, at = place_of(id)
    local pairs_found = server.call('LRANGE', log.key(q, bucket), at, -1)
    if not pairs_found[1] then
      id = log.skip_gap(q, bucket)
    end
    for i = 1, #pairs_found, 2 do
      id = id + 1
      if pairs_found[i] ~= '' then
        if at_head then -- nothing before this one is ready: the next walk need not look there
          at_head = false
          q.changed = q.changed or id - 1 > q.head
          q.head = id - 1
        end
        if visit(id - 1, pairs_found[i], pairs_found[i + 1]) == false then
          return
        end
      end
    end
  end
end
