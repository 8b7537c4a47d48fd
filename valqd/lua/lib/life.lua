-- life: what happens to messages when time passes or a delivery ends.
-- requires: number, volatile, queue, record, letters

local life = {}

-- How many due messages a call settles on its way: one that changes something only has to keep up with what falls due; one
-- that shows or takes what is there should see it as it is.
life.BRIEFLY, life.FULLY = 200, 1000

local MAX_TIES = 2000
-- How many records the sweep looks at in one step, when the number of attempts was lowered.
local SPENT_STEP = 500

-- How long a message waits before it is ready again, by the queue's backoff; ms.  Jitter only ever shortens it.
-- The jitter is taken from id and time: Valkey gives every call the same random numbers.
function life.backoff_ms(q, id, attempts)
  local backoff = q.limits and q.limits.backoff
  if not backoff then
    return 0
  end
  local kind, base, cap, jitter = unpack(backoff)
  local delay = base
  if kind == 'LINEAR' then
    delay = base * attempts
  elseif kind == 'EXP' then
    delay = base * 2 ^ (attempts - 1)
  end
  delay = math.min(delay, cap)
  if jitter > 0 then
    local random = (id * 7919 + q.now) % 2147483647 * 48271 % 2147483647 / 2147483647
    delay = delay * (1 - random * jitter / 100)
  end
  return math.floor(delay)
end

-- Whether a record has used up its attempts.
function life.is_spent(q, meta)
  return meta.a >= (meta.m or queue.rules(q))
end

-- A record (in no index) has used up its attempts, or failed for good.  Within life.together.
function life.die(q, id, meta, why)
  queue.count(q, 'dead', 1)
  record.free_dedup(q, id, meta)
  if meta.x then
    server.call('ZREM', q.prefix .. 'expiry', id)
    meta.x = nil
  end
  meta.D = q.now
  record.uncount(q, id, meta) -- max_bytes does not count the dead
  meta.s = 'q'
  meta.w = why
  local dead = q.ended.dead
  dead[#dead + 1] = {id, meta}
end

-- Run `work`: what dies or expires in it is put where it is to be, or removed, together at its end.
function life.together(q, work)
  local ended = {dead = {}, expired = {}, expired_metas = {}}
  q.ended = ended
  work()
  q.ended = false
  if ended.dead[1] then
    letters.bury(q, ended.dead)
  end
  record.drop_all(q, ended.expired, ended.expired_metas)
  queue.count(q, 'expired', #ended.expired)
end

-- The TTL of a record is over: it is removed, whatever index it is in.  Within life.together.
function life.expire(q, id, meta)
  local ids = q.ended.expired
  ids[#ids + 1] = number.text(id)
  q.ended.expired_metas[#ids] = meta
end

function life.delay(q, id, meta, until_ms)
  record.enter(q, id, meta, 'd', until_ms)
  queue.note_due(q, until_ms)
end

-- The delivery of a record that was in flight (and is in no index now) has ended without an ack, at `ended_ms`: back to
-- ready, delayed, or dead, unless its TTL was over before.
function life.give_back(q, id, meta, delay_ms, why, ended_ms)
  if meta.c then
    record.drop(q, id, meta)
    queue.count(q, 'cancelled', 1)
    return
  end
  local is_last = life.is_spent(q, meta)
  if meta.x and meta.x <= (is_last and ended_ms or q.now) then
    life.expire(q, id, meta)
    return
  end
  if is_last then
    life.die(q, id, meta, why)
    return
  end
  if meta.x then -- while it was in flight its time may have been over, before the clock was set back
    queue.put(q, 'ZADD', 'expiry', number.text(meta.x), number.text(id))
    queue.note_due(q, meta.x)
  end
  if delay_ms > 0 then
    life.delay(q, id, meta, q.now + delay_ms)
  else
    record.enter(q, id, meta, 'r')
  end
end

-- Of what is due in an index: at most `limit` ids.  Where they become ready, with the last all that are due at the same ms, up
-- to MAX_TIES: POP COUNT gives many leases one end, and these come back together or their order would be lost.
local function due_ids(q, index, until_ms, limit)
  local key = q.prefix .. index
  local ids = server.call('ZRANGEBYSCORE', key, '-inf', number.text(until_ms), 'LIMIT', 0, limit)
  if #ids == limit and (index == 'inflight' or index == 'delayed') then
    local last_ms = tonumber(server.call('ZSCORE', key, ids[limit]))
    local known = server.call('ZCOUNT', key, '-inf', '(' .. number.text(last_ms))
    local ties = server.call('ZRANGEBYSCORE', key, number.text(last_ms), number.text(last_ms), 'LIMIT', limit - known,
      MAX_TIES)
    for _, id in ipairs(ties) do
      ids[#ids + 1] = id
    end
  end
  return ids
end

local function first_score(q, index)
  local first = server.call('ZRANGE', q.prefix .. index, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) or queue.FOREVER
end

-- Of messages whose lease is over, those that one step ends: all that do not die (in two steps they would lose their order),
-- and as many of those that die as it may move into another queue.  The others stay in flight until the next step.  Returns
-- ids, and their fields by the same index.
local function without_too_many(q, ids, metas)
  local kept, fields = {}, {}
  local fits = letters.fits_one_step(q)
  local attempts = queue.rules(q)
  for i, id in ipairs(ids) do
    local meta = metas[i]
    local stays = false
    if (meta and meta.a or 1) >= (meta and meta.m or attempts) and not (meta and meta.c) then
      stays = not fits(id)
    end
    if not stays then
      kept[#kept + 1] = id
      fields[#kept] = meta
    end
  end
  return kept, fields
end

-- Deliveries whose lease is over: their messages go back.
local function end_leases(q, ids)
  local moves_dead = q.limits and q.limits.dlq
  if moves_dead then -- in the order of their ids, which the index does not keep for those of one ms
    table.sort(ids, function(a, b)
      return tonumber(a) < tonumber(b)
    end)
  end
  local metas = record.load_all(q, ids)
  if moves_dead then
    ids, metas = without_too_many(q, ids, metas)
  end
  queue.gather(q)
  record.of_all_inflight(q, ids, metas)
  queue.flush(q) -- who dies has to have a body
  queue.write(q, 'ZREM', 'inflight', ids)
  queue.gather(q)
  life.together(q, function()
    for i, text in ipairs(ids) do
      local meta = metas[i]
      if meta then
        meta.f = q.now
        meta.e = 'lease expired'
        local id = tonumber(text)
        life.give_back(q, id, meta, life.backoff_ms(q, id, meta.a), 'lease expired', meta.l)
      else
        record.lose(q, 'inflight', {text})
      end
    end
  end)
  queue.flush(q)
end

-- Delays that are over: their messages are ready.
local function end_delays(q, ids)
  local metas
  ids, metas = record.whole(q, 'delayed', ids)
  queue.write(q, 'ZREM', 'delayed', ids)
  queue.gather(q)
  life.together(q, function()
    for i, text in ipairs(ids) do
      local id, meta = tonumber(text), metas[i]
      if life.is_spent(q, meta) then -- the queue's number was lowered since
        life.die(q, id, meta, 'attempts used up')
      else
        record.enter(q, id, meta, 'r')
      end
    end
  end)
  queue.flush(q)
end

-- A step of ending what is ready with its attempts used up, since the queue's number was lowered; whether there may be more.
function life.end_spent(q)
  if not (q.limits and q.limits.spent) then
    return false
  end
  local cursor, found = unpack(server.call('HSCAN', q.prefix .. 'meta', q.limits.spent, 'COUNT', SPENT_STEP))
  local spent = {}
  for i = 1, #found, 2 do
    local id, meta = tonumber(found[i]), cmsgpack.unpack(found[i + 1])
    if meta.s == 'r' and life.is_spent(q, meta) then
      spent[#spent + 1] = {id, meta}
    end
  end
  table.sort(spent, function(a, b)
    return a[1] < b[1]
  end)
  life.together(q, function()
    for _, message in ipairs(spent) do
      record.leave(q, message[1], message[2])
      life.die(q, message[1], message[2], 'attempts used up')
    end
  end)
  q.limits.spent = cursor ~= '0' and cursor or nil
  queue.save_limits(q)
  return q.limits.spent ~= nil
end

-- Messages whose TTL is over are removed; those in flight are looked at when their deliveries end.
local function end_lives(q, ids)
  local metas
  ids, metas = record.whole(q, 'expiry', ids)
  local inflight = {}
  life.together(q, function()
    for i, id in ipairs(ids) do
      if metas[i].s == 'i' then
        inflight[#inflight + 1] = id
      else
        life.expire(q, tonumber(id), metas[i])
      end
    end
  end)
  queue.write(q, 'ZREM', 'expiry', inflight)
end

-- What PAUSE held back until now is held back no more.
local function end_pauses(q)
  for _, way in ipairs({'pause_in', 'pause_out'}) do
    local ends_at = q.limits and q.limits[way]
    if ends_at and ends_at <= q.now then
      q.limits[way] = nil
      queue.save_limits(q)
      q.wakes = q.wakes or way == 'pause_out'
    end
  end
end

-- Do what is due: about `limit` messages, or if more are due as many of each kind; how many these were, as q.settled.  True
-- (also as q.behind) if more is due.
function life.settle(q, limit)
  q.behind = false
  q.settled = 0
  if q.now < q.due then
    return false
  end
  local _, retention = queue.rules(q)
  local until_ms = {inflight = q.now, delayed = q.now, expiry = q.now, windows = q.now,
    dlq = retention > 0 and q.now - retention or nil}
  local kinds, total = 0, 0
  for index, ms in pairs(until_ms) do
    local count = server.call('ZCOUNT', q.prefix .. index, '-inf', number.text(ms))
    if count == 0 then
      until_ms[index] = nil
    else
      kinds = kinds + 1
      total = total + count
    end
  end
  local share = total <= limit and limit or math.ceil(limit / kinds)
  local function due(index)
    local ids = until_ms[index] and due_ids(q, index, until_ms[index], share) or {}
    q.settled = q.settled + #ids
    return ids
  end
  end_leases(q, due('inflight'))
  end_delays(q, due('delayed'))
  end_lives(q, due('expiry'))
  record.drop_all(q, record.whole(q, 'dlq', due('dlq')))
  local keys = due('windows')
  queue.write(q, 'ZREM', 'windows', keys)
  queue.write(q, 'HDEL', 'dedup', keys)
  end_pauses(q)
  life.find_due(q)
  q.behind = q.due <= q.now
  return q.behind
end

-- Set q.due to the next time at which something must be settled.
function life.find_due(q)
  local _, retention = queue.rules(q)
  local due = math.min(first_score(q, 'inflight'), first_score(q, 'delayed'), first_score(q, 'expiry'),
    first_score(q, 'windows'))
  if retention > 0 then
    due = math.min(due, first_score(q, 'dlq') + retention)
  end
  if q.limits then
    due = math.min(due, q.limits.pause_in or queue.FOREVER, q.limits.pause_out or queue.FOREVER)
  end
  q.due = due
  q.changed = true
  if due < queue.FOREVER then
    volatile.note(q.name, due)
  end
end
