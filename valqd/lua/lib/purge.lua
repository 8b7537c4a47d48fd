-- purge: removing all messages of some states, in bounded steps.
-- requires: number, queue, log, record

local purge = {}

local PURGE_STEP = 2000
local PURGE_BUCKETS = 500
-- Indexes by the state that a client names.
purge.INDEXES = {
  main = {'inflight', 'ready'},
  ready = {'ready'},
  inflight = {'inflight'},
  delayed = {'delayed'},
  dlq = {'dlq'},
  all = {'inflight', 'delayed', 'dlq', 'ready'},
}

-- Of PURGE_STEP members of an index, after the first `offset` of them, remove those with ids up to `last`.  Returns how many,
-- whether there may be more, and the offset for these.
local function purge_index(q, index, last, offset)
  local found = server.call('ZRANGE', q.prefix .. index, offset, offset + PURGE_STEP - 1)
  local ids = {}
  for _, id in ipairs(found) do
    if tonumber(id) <= last then
      ids[#ids + 1] = id
    end
  end
  local records, fields, plain = record.split(q, ids) -- plain ones are in flight
  record.drop_all(q, records, fields)
  record.lose(q, index, plain)
  if index == 'inflight' then
    log.forget_all(q, plain)
  end
  return #ids, #found == PURGE_STEP, offset + #found - #ids
end

-- Remove ready plain messages with ids up to `last`, in at most PURGE_BUCKETS buckets; whole ones are not read.  Returns how
-- many, and whether there may be more.
local function purge_log(q, last)
  local slots = queue.SLOTS
  local removed, visited = 0, 0
  local more = false
  local id = q.head
  for bucket, gone in log.buckets(q, log.bucket(id), 1) do
    local before = bucket * slots
    local from = math.max(id, before + 1)
    if q.plain == 0 or from > last then
      break
    elseif visited == PURGE_BUCKETS then
      more = true
      break
    end
    id = from
    local count = log.count_ready(q, bucket, gone, last)
    if count > 0 then
      log.forget(q, bucket, count)
    end
    removed = removed + count
    q.plain = q.plain - count
    id = math.min(before + slots, last) + 1
    visited = visited + 1
  end
  q.head = id
  q.changed = true
  return removed, more
end

-- The token of a step: when the queue was made; last id at the first step; of this round which index, how many of it were
-- passed over, how many were removed.
local function token_of(q, last, which, offset, removed)
  return table.concat({q.created_at, number.text(last), which, number.text(offset), number.text(removed)}, ':')
end

-- The token of a first step.
function purge.begin(q)
  return token_of(q, q.seq, 1, 0, 0)
end

-- One step: how many were removed, and the token for the next ('' when done).  Between two steps messages move from one
-- index to another, and those that were passed over go: rounds are made until one finds nothing more.
function purge.step(q, indexes, token)
  local created_at, last, which, offset, before = token:match('^(%d+):(%d+):(%d+):(%d+):(%d+)$')
  if tonumber(created_at) ~= q.created_at then -- another queue of that name: all in it came later
    return 0, ''
  end
  last, which, offset, before = tonumber(last), tonumber(which), tonumber(offset), tonumber(before)
  local from_the_start = which == 1 and offset == 0 -- a step that reaches the end too leaves nothing
  local removed, more = 0, false
  repeat
    local index = indexes[which]
    local count
    count, more, offset = purge_index(q, index, last, offset)
    removed = removed + count
    if not more and index == 'ready' then
      count, more = purge_log(q, last)
      removed = removed + count
    end
    if not more then
      which = which + 1
      offset = 0
    end
  until more or removed >= PURGE_STEP or not indexes[which]
  if indexes[which] then
    return removed, token_of(q, last, which, offset, before + removed)
  elseif from_the_start or before + removed == 0 then
    return removed, ''
  end
  return removed, token_of(q, last, 1, 0, 0)
end
