-- order: which messages POP would give, without taking them.
-- requires: number, queue, log, record

local order = {}

-- How many ready plain messages the log holds in each bucket from the head on: visit(bucket, first id, last id, count).
local function each_bucket(q, visit)
  if q.plain == 0 then
    return
  end
  local last = log.bucket(q.seq)
  for bucket = log.bucket(q.head), last do
    local gone = server.call('HGET', q.prefix .. 'gone', bucket)
    if gone then
      local first_id = math.max(q.head, bucket * SLOTS + 1)
      local last_id = math.min(q.seq, (bucket + 1) * SLOTS)
      local count
      if first_id == bucket * SLOTS + 1 then
        count = last_id - first_id + 1 - tonumber(gone)
      else -- the head's bucket: slots before the head are gone too, or in flight
        count = 0
        log.each_ready(q, first_id, function(id)
          if id > last_id then
            return false
          end
          count = count + 1
        end)
      end
      if count > 0 and visit(first_id, last_id, count) == false then
        return
      end
    end
  end
end

-- Ids of ready messages in the order of POP, from `offset` on; or, reversed, the last ones first.
function order.ready(q, count, offset, reverse)
  local ready = q.prefix .. 'ready'
  local plain_ids = {}
  if reverse then
    local records = server.call('ZREVRANGE', ready, 0, number.text(count - 1), 'WITHSCORES')
    local id = q.seq
    while id >= q.head and #plain_ids < count and q.plain > 0 do
      local bucket = log.bucket(id)
      local from = math.max(q.head, bucket * SLOTS + 1)
      local found = {}
      log.each_ready(q, from, function(ready_id)
        if ready_id > id then
          return false
        end
        found[#found + 1] = ready_id
      end)
      for i = #found, 1, -1 do
        plain_ids[#plain_ids + 1] = found[i]
      end
      id = from - 1
    end
    return order.merge(records, plain_ids, 0, count, function(a, b) return a > b end)
  end
  -- Skip whole buckets: up to the last id of a bucket, POP gives as many messages as ids and records before it.
  local from, skipped = q.head, 0
  each_bucket(q, function(_, last_id, in_bucket)
    local records = server.call('ZCOUNT', ready, '-inf', number.text(last_id))
    if skipped + in_bucket + records > offset then
      return false
    end
    skipped = skipped + in_bucket
    from = last_id + 1
  end)
  local before = 0
  if from > q.head then
    before = server.call('ZCOUNT', ready, '-inf', number.text(from - 1))
  end
  local rest = offset - skipped - before
  if rest < 0 then
    rest = 0
  end
  local records = server.call('ZRANGE', ready, number.text(before), number.text(before + rest + count - 1), 'WITHSCORES')
  if q.plain > 0 then
    log.each_ready(q, from, function(id)
      plain_ids[#plain_ids + 1] = id
      return #plain_ids < rest + count
    end)
  end
  return order.merge(records, plain_ids, rest, count, function(a, b) return a < b end)
end

-- Ids of ready messages, the oldest first whatever their priority, from `offset` on.
function order.oldest(q, count, offset)
  local ready = q.prefix .. 'ready'
  local first = server.call('ZRANGE', ready, 0, 0, 'WITHSCORES')
  if not first[2] or tonumber(first[2]) > 0 then -- none has a priority
    return order.ready(q, count, offset, false)
  end
  local wanted = number.text(offset + count)
  local ids = {}
  for priority = 0, MAX_PRIORITY do
    local from = -priority * PRIORITY_STEP
    local found = server.call('ZRANGE', ready, number.arg(from), '(' .. number.arg(from + PRIORITY_STEP), 'BYSCORE',
      'LIMIT', 0, wanted)
    for _, id in ipairs(found) do
      ids[#ids + 1] = tonumber(id)
    end
  end
  local plain = 0
  if q.plain > 0 then
    log.each_ready(q, q.head, function(id)
      ids[#ids + 1] = id
      plain = plain + 1
      return plain < offset + count
    end)
  end
  table.sort(ids)
  return {unpack(ids, offset + 1, math.min(#ids, offset + count))}
end

-- Merge records (id, score ...) and plain ids (their own score), skip `skip` and return `count` ids.
function order.merge(records, plain_ids, skip, count, comes_first)
  local merged = {}
  local r, p = 1, 1
  while #merged < skip + count do
    local score = records[r + 1] and tonumber(records[r + 1])
    local id = plain_ids[p]
    if score and (not id or comes_first(score, id)) then
      merged[#merged + 1] = tonumber(records[r])
      r = r + 2
    elseif id then
      merged[#merged + 1] = id
      p = p + 1
    else
      break
    end
  end
  local ids = {}
  for i = skip + 1, #merged do
    ids[#ids + 1] = merged[i]
  end
  return ids
end
