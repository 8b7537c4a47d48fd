-- order: which messages POP would give, without taking them.
-- requires: number, queue, log, record

local order = {}

-- How many ready records POP gives before a plain message `id`.
local function records_before(q, id)
  return server.call('ZCOUNT', q.prefix .. 'ready', '-inf', '(' .. number.text(id))
end

-- The first bucket of the log that is not passed over whole on the way to the message at `offset`, and how many plain
-- messages are: up to the last id of a bucket, POP gives as many messages as there are plain ones and records before it.
local function seek(q, offset)
  local skipped = 0
  local last = log.bucket(q.seq)
  local from = log.bucket(q.head)
  while from <= last and skipped < q.plain do
    local to = math.min(last, from + STRIDE - 1)
    local counts = log.count_ready(q, from, to)
    local total = 0
    for _, count in ipairs(counts) do
      total = total + count
    end
    if skipped + total + records_before(q, (to + 1) * SLOTS + 1) <= offset then
      skipped = skipped + total
    else
      for i, count in ipairs(counts) do
        if count > 0 then
          if skipped + count + records_before(q, (from + i) * SLOTS + 1) > offset then
            return from + i - 1, skipped
          end
          skipped = skipped + count
        end
      end
    end
    from = to + 1
  end
  return last + 1, skipped
end

-- Ids of ready messages in the order of POP, from `offset` on; or, reversed, the last ones first.
function order.ready(q, count, offset, reverse)
  local ready = q.prefix .. 'ready'
  if reverse then
    local records = server.call('ZREVRANGE', ready, 0, number.text(count - 1), 'WITHSCORES')
    local plain_ids = log.ready_ids(q, log.bucket(q.seq), -1, math.min(count, q.plain))
    return order.merge(records, plain_ids, 0, count, function(a, b) return a > b end)
  end
  local bucket, skipped = seek(q, offset)
  local before = math.min(records_before(q, bucket * SLOTS + 1), offset - skipped)
  local rest = offset - skipped - before
  local records = server.call('ZRANGE', ready, number.text(before), number.text(before + rest + count - 1), 'WITHSCORES')
  local plain_ids = log.ready_ids(q, bucket, 1, math.min(rest + count, q.plain - skipped))
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
