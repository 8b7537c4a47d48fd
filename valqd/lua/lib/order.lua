-- order: which messages POP would give, without taking them.
-- requires: number, queue, log, record

local order = {}

-- Of more messages than this with one time, the index's own order is taken: by the digits of their ids.
local MOST_TIES = 2000
-- Buckets that are passed over at once.
local PAGE_BUCKETS = 500

-- How many ready records POP gives before a plain message `id`.
local function records_before(q, id)
  return server.call('ZCOUNT', q.prefix .. 'ready', '-inf', '(' .. number.text(id))
end

-- In which bucket of the log to begin for the message at `offset`, and how many plain messages lie before that bucket.  Up to
-- the last id of a bucket POP gives the plain ones so far and the records before that id: while these are not more than
-- `offset`, the bucket is passed over whole.
local function seek(q, offset)
  local skipped = 0
  local next_bucket = log.buckets(q, log.bucket(q.head), 1)
  while skipped < q.plain do
    local buckets, counts, total = {}, {}, 0
    for bucket, gone in next_bucket do
      local count = log.count_ready(q, bucket, gone, q.seq)
      buckets[#buckets + 1] = bucket
      counts[#counts + 1] = count
      total = total + count
      if #buckets == PAGE_BUCKETS then
        break
      end
    end
    if not buckets[1] then
      break
    end
    if skipped + total + records_before(q, (buckets[#buckets] + 1) * queue.SLOTS + 1) <= offset then
      skipped = skipped + total
    else
      for i, bucket in ipairs(buckets) do
        if skipped + counts[i] + records_before(q, (bucket + 1) * queue.SLOTS + 1) > offset then
          return bucket, skipped
        end
        skipped = skipped + counts[i]
      end
    end
  end
  return log.bucket(q.seq) + 1, skipped
end

-- Merge records (id, score ...) and plain ids (their own score), skip `skip` and return `count` ids.
local function merge(records, plain_ids, skip, count, comes_first)
  local ids = {}
  local r, p = 1, 1
  for place = 1, skip + count do
    local score = records[r + 1] and tonumber(records[r + 1])
    local id = plain_ids[p]
    if score and (not id or comes_first(score, id)) then
      id = tonumber(records[r])
      r = r + 2
    elseif id then
      p = p + 1
    else
      break
    end
    if place > skip then
      ids[#ids + 1] = id
    end
  end
  return ids
end

-- Ids of ready messages in the order of POP, from `offset` on; or, reversed, the last ones first.
function order.ready(q, count, offset, reverse)
  local ready = q.prefix .. 'ready'
  if reverse then
    local records = server.call('ZREVRANGE', ready, 0, number.text(count - 1), 'WITHSCORES')
    local plain_ids = log.ready_ids(q, log.bucket(q.seq), -1, math.min(count, q.plain))
    return merge(records, plain_ids, 0, count, function(a, b) return a > b end)
  end
  local bucket, skipped = seek(q, offset)
  local before = math.min(records_before(q, bucket * queue.SLOTS + 1), offset - skipped)
  local rest = offset - skipped - before
  local records = server.call('ZRANGE', ready, number.text(before), number.text(before + rest + count - 1), 'WITHSCORES')
  local plain_ids = log.ready_ids(q, bucket, 1, math.min(rest + count, q.plain - skipped))
  return merge(records, plain_ids, rest, count, function(a, b) return a < b end)
end

-- Ids (numbers) in an index that is ordered by time, `count` from `offset` on: by time, then by id.
function order.by_time(q, index, count, offset)
  local key = q.prefix .. index
  local found = server.call('ZRANGE', key, number.text(offset), number.text(offset + count - 1), 'WITHSCORES')
  if not found[1] then
    return {}
  end
  local from, to = offset, offset + #found / 2 -- ranks, from the first with the first time to after the last with the last
  local first = server.call('ZCOUNT', key, '-inf', '(' .. found[2])
  local after = server.call('ZCOUNT', key, '-inf', found[#found])
  if after - first - (to - from) <= MOST_TIES then
    from, to = first, after
    found = server.call('ZRANGE', key, from, to - 1, 'WITHSCORES')
  end
  local timed = {}
  for i = 1, #found, 2 do
    timed[#timed + 1] = {tonumber(found[i]), tonumber(found[i + 1])}
  end
  table.sort(timed, function(a, b)
    return a[2] < b[2] or a[2] == b[2] and a[1] < b[1]
  end)
  local ids = {}
  for i = offset - from + 1, math.min(#timed, offset - from + count) do
    ids[#ids + 1] = timed[i][1]
  end
  return ids
end

-- The last `count` of them, the last one first.
function order.by_time_reversed(q, index, count)
  local ids = order.by_time(q, index, count, math.max(0, server.call('ZCARD', q.prefix .. index) - count))
  local reversed = {}
  for i = #ids, 1, -1 do
    reversed[#reversed + 1] = ids[i]
  end
  return reversed
end

-- Of each priority the first ready records with ids after `after`, at most `count`: their ids, and up to which id none is
-- missing.
local function oldest_records(q, after, count)
  local priority_step = record.PRIORITY_STEP
  local ids = {}
  local complete = queue.FOREVER
  local priority = record.MAX_PRIORITY
  while priority >= 0 do
    local found = server.call('ZRANGE', q.prefix .. 'ready', number.arg(after + 1 - priority * priority_step), '+inf',
      'BYSCORE', 'LIMIT', 0, count, 'WITHSCORES')
    if not found[1] then
      break
    end
    local first = math.ceil(-found[2] / priority_step)
    if first == priority or tonumber(found[1]) > after then
      for i = 1, #found, 2 do
        if math.ceil(-found[i + 1] / priority_step) == first then
          ids[#ids + 1] = tonumber(found[i])
        end
      end
      if ids[#ids] == tonumber(found[2 * count - 1]) then
        complete = math.min(complete, ids[#ids])
      end
      first = first - 1
    end
    priority = first
  end
  return ids, complete
end

-- A walk over the ids of ready messages, the oldest first whatever their priority: each call of what is returned gives the
-- next, `count` or some more, and none at the end.  Nothing may be removed meanwhile.
function order.oldest(q)
  local after = 0 -- all up to this id were given
  local plain_left = q.plain
  return function(count)
    local ids, complete = oldest_records(q, after, count)
    local plain_ids = {}
    if plain_left > 0 then
      local wanted = math.min(count, plain_left)
      log.each_ready(q, after + 1, function(id)
        plain_ids[#plain_ids + 1] = id
        return #plain_ids < wanted
      end)
      if #plain_ids == count then
        complete = math.min(complete, plain_ids[count])
      end
    end
    for _, id in ipairs(plain_ids) do
      if id <= complete then
        ids[#ids + 1] = id
        plain_left = plain_left - 1
      end
    end
    table.sort(ids)
    while ids[1] and ids[#ids] > complete do
      ids[#ids] = nil
    end
    if ids[1] and ids[#ids] <= after then -- who may write the index may write any scores: no walk without end
      return {}
    end
    after = ids[#ids] or after
    return ids
  end
end
