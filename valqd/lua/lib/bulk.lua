-- bulk: PURGE and REDRIVE, a bounded step at a time.
-- requires: number, queue, log, record, life, order, add, receipt

local bulk = {}

local PURGE_STEP = 2000
local PURGE_BUCKETS = 500
local REDRIVE_STEP = 1000
local PURGED = {
  main = {'inflight', 'ready'},
  ready = {'ready'},
  inflight = {'inflight'},
  delayed = {'delayed'},
  dlq = {'dlq'},
  all = {'inflight', 'delayed', 'dlq', 'ready'},
}

-- Of `limit` members of an index, after the first `offset` of them, remove those with ids up to `last`.  Returns how many,
-- whether there may be more, and the offset for these.
local function purge_index(q, index, last, limit, offset)
  local found = server.call('ZRANGE', q.prefix .. index, offset, offset + limit - 1)
  local ids = {}
  for _, id in ipairs(found) do
    if tonumber(id) <= last then
      ids[#ids + 1] = id
    end
  end
  local metas = record.load_all(q, ids)
  local records, fields, plain = {}, {}, {}
  for i, id in ipairs(ids) do
    if metas[i] then
      records[#records + 1] = id
      fields[#fields + 1] = metas[i]
    else -- in flight
      plain[#plain + 1] = id
    end
  end
  record.drop_all(q, records, fields)
  queue.remove(q, 'ZREM', index, plain)
  log.forget_all(q, plain)
  return #ids, #found == limit, offset + #found - #ids
end

-- Remove ready plain messages with ids up to `last`, in at most `limit` buckets; whole ones are not read.
local function purge_log(q, last, limit)
  local slots = queue.SLOTS
  local removed = 0
  local id = q.head
  while q.plain > 0 and id <= last and limit > 0 do
    local bucket = log.bucket(id)
    local at = id - 1 - bucket * slots
    local bucket_last = math.min((bucket + 1) * slots, last)
    local count = 0
    if at == 0 and bucket_last == (bucket + 1) * slots then
      local gone = server.call('HGET', q.prefix .. 'gone', bucket)
      count = gone and slots - gone or 0
    else
      local found = server.call('LRANGE', log.key(q, bucket), at * 2, (bucket_last - 1 - bucket * slots) * 2 + 1)
      for i = 1, #found, 2 do
        if found[i] ~= '' then
          count = count + 1
        end
      end
    end
    if count > 0 then
      log.forget(q, bucket, count)
    end
    removed = removed + count
    q.plain = q.plain - count
    id = bucket_last + 1
    limit = limit - 1
  end
  q.head = math.max(q.head, id)
  q.moved = true
  return removed, q.plain > 0 and id <= last
end

local function purge_token(last, which, offset, removed)
  return table.concat({number.text(last), which, number.text(offset), number.text(removed)}, ':')
end

-- The token of a first step that is still to be made.
function bulk.first_token(q)
  return purge_token(q.seq, 1, 0, 0)
end

-- One step: how many were removed, and the token for the next ('' when done).  Between two steps messages move from one
-- index to another, and those that were passed over go: rounds are made until one finds nothing more.
-- token: last id at the first step; of this round which index, how many of it were passed over, how many were removed.
function bulk.purge(q, states, token)
  local last, which, offset, before = token:match('^(%d+):(%d+):(%d+):(%d+)$')
  last = tonumber(last) or q.seq
  which = tonumber(which) or 1
  offset = tonumber(offset) or 0
  before = tonumber(before) or 0
  local round_began = which == 1 and offset == 0 and before == 0
  local indexes = PURGED[states]
  local removed, more = 0, false
  repeat
    local index = indexes[which]
    local count
    count, more, offset = purge_index(q, index, last, PURGE_STEP, offset)
    removed = removed + count
    if not more and index == 'ready' then
      count, more = purge_log(q, last, PURGE_BUCKETS)
      removed = removed + count
    end
    if not more then
      which = which + 1
      offset = 0
    end
  until more or removed >= PURGE_STEP or not indexes[which]
  if indexes[which] then
    return removed, purge_token(last, which, offset, before + removed)
  elseif round_began or before + removed == 0 then
    return removed, ''
  end
  return removed, purge_token(last, 1, 0, 0)
end

-- Move one dead letter to `target`: whether it was moved, and the text of the FULL error when that has no room.
local function redrive_one(q, target, id, meta)
  if target == q then
    local full = add.make_room(q, 1, server.call('HSTRLEN', q.prefix .. 'body', id))
    meta = record.load(q, id) -- its retention may be over, as was found on the way
    if not full and meta then
      life.redrive(q, id, meta)
    end
    return not full and meta, full
  end
  local body = server.call('HGET', q.prefix .. 'body', id)
  local full = add.make_room(target, 1, #body)
  if not full then
    local copy = {t = meta.t, n = 0, a = 0, p = meta.p, v = meta.v, m = meta.m, h = meta.h, e = meta.e, f = meta.f, D = meta.D}
    record.enter(target, record.add(target, body, copy), copy, 'r')
    record.drop(q, id, meta)
  end
  return not full, full
end

-- One step of args (see functions/redrive): moved, token for the next ('' when done), text of a FULL error.
-- What dies later than the first step began is left: it may be what this moved.
-- token: when the first step began, how many the limit still allows, which of the ids is next.
function bulk.redrive(q, target, args, token)
  local began, left, at = token:match('^(%d+):(%d*):(%d+)$')
  began = tonumber(began) or q.now
  left = tonumber(left or args[5]) or queue.FOREVER
  at = tonumber(at) or 0
  local moved = 0
  local ids = {}
  if args[3] == 'ID' then
    for i = 6 + at, math.min(#args, 5 + at + REDRIVE_STEP) do
      local id, n = receipt.parse(args[i])
      ids[#ids + 1] = n and '0' or id -- the lease of a receipt is over: it names nothing here
    end
    at = at + #ids
  else
    ids = order.by_time(q, 'dlq', 0, math.min(left, REDRIVE_STEP))
  end
  for _, id in ipairs(ids) do
    id = tonumber(id)
    local meta = left > moved and record.load(q, id)
    if meta and meta.s == 'q' and meta.D <= began then
      local is_moved, full = redrive_one(q, target, id, meta)
      if full then
        return moved, '', full
      end
      moved = moved + (is_moved and 1 or 0)
    end
  end
  left = left - moved
  local more = moved > 0
  if args[3] == 'ID' then
    more = 6 + at <= #args
  end
  if not more or left <= 0 then
    return moved, ''
  end
  return moved, number.text(began) .. ':' .. number.text(left) .. ':' .. number.text(at)
end
