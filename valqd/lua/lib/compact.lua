-- compact: buckets of which little is left give their memory back.
-- requires: volatile, queue, log, record

local compact = {}

-- How often a queue whose buckets may have become sparse is looked at.
compact.EVERY_MS = 5000
-- A bucket with at least this many slots gone is sparse.
local SPARSE_SLOTS = 64
local PAGE_BUCKETS = 50
local STEP_PAGES = 100
local MAX_CONVERTED = 1000
-- To look at all slots of a bucket takes as long as to convert so many.
local LOOK = 32

-- The queue, among those of its name in other databases.
local function walked(q)
  return q.name .. ':' .. q.created_at
end

-- Begin the walk over its buckets anew.
function compact.restart(q)
  volatile.cursors[walked(q)] = nil
end

-- Turn what is left in one bucket into records, how many; the bucket goes with the last of them.
local function convert(q, bucket)
  local first = bucket * queue.SLOTS + 1
  local ids = {}
  for id = first, first + queue.SLOTS - 1 do
    ids[#ids + 1] = id
  end
  local scores = server.call('ZMSCORE', q.prefix .. 'inflight', unpack(ids))
  local metas = server.call('HMGET', q.prefix .. 'meta', unpack(ids))
  local converted = 0
  for i, id in ipairs(ids) do
    if not metas[i] and ((scores[i] and record.of_inflight(q, id)) or (id >= q.head and record.of_ready(q, id))) then
      converted = converted + 1
    end
  end
  return converted
end

-- When there are many more buckets than plain messages need, make records of the messages of sparse ones; in a queue with
-- max_bytes, which has to know every size, of all.  About one page of buckets a step; true if there may be more to do.
function compact.step(q)
  local gone_key = q.prefix .. 'gone'
  local buckets = server.call('HLEN', gone_key)
  local all = q.limits and q.limits.max_bytes and buckets > 0
  if not all then
    local records = server.call('HLEN', q.prefix .. 'meta')
    local inflight = server.call('ZCARD', q.prefix .. 'inflight')
    local live = q.plain + math.max(0, inflight - records)
    if buckets <= 2 * live / queue.SLOTS + 16 then
      compact.restart(q)
      return false
    end
  end
  local last = log.bucket(q.seq)
  local cursor = volatile.cursors[walked(q)] or '0'
  for _ = 1, STEP_PAGES do
    local found = server.call('HSCAN', gone_key, cursor, 'COUNT', PAGE_BUCKETS)
    local converted = 0
    for i = 1, #found[2], 2 do
      local bucket = tonumber(found[2][i])
      local is_one = bucket and bucket >= 0 and bucket <= last -- who may write the hash may write anything
      if is_one and (all or bucket ~= last and tonumber(found[2][i + 1]) >= SPARSE_SLOTS) then
        local moved = convert(q, bucket)
        if moved == 0 and server.call('EXISTS', log.key(q, bucket)) == 0 then
          server.call('HDEL', gone_key, bucket) -- its key was removed
          moved = LOOK
        end
        converted = converted + (moved > 0 and math.max(moved, LOOK) or 0)
        if converted > MAX_CONVERTED then
          return true -- HSCAN may give all of a small hash at once: the cursor stays where it was
        end
      end
    end
    cursor = found[1]
    volatile.cursors[walked(q)] = cursor ~= '0' and cursor or nil
    if converted > 0 or cursor == '0' then
      return converted > 0 or cursor ~= '0'
    end
  end
  return true
end
