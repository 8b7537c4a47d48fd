-- life: what happens to messages when time passes or a delivery ends.
-- requires: number, reply, volatile, queue, log, record

local life = {}

-- How long a message waits before it is ready again, by the queue's backoff; ms.
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
    local random = ((id * 7919 + q.now) * 48271) % 2147483647 / 2147483647
    delay = math.min(cap, delay * (1 + (2 * random - 1) * jitter / 100))
  end
  return math.floor(delay)
end

-- Push a dead message to the queue that is its queue's dead letter queue.  false if the caller may not write there.
local function push_elsewhere(q, id, meta, body, why)
  local key = 'valq:{' .. q.limits.dlq .. '}:queue'
  local there = server.pcall('HGET', key, 'seq')
  if type(there) == 'table' and there.err then
    return false
  end
  local target = queue.open_or_create(key, '30000:5:86400000')
  local headers = {}
  for _, item in ipairs(meta.h or {}) do
    headers[#headers + 1] = item
  end
  for field, value in pairs({['valq-queue'] = q.name, ['valq-id'] = number.text(id), ['valq-reason'] = why,
    ['valq-attempts'] = number.text(meta.a)}) do
    headers[#headers + 1] = field
    headers[#headers + 1] = value
  end
  local copy = {t = target.now, n = 0, a = 0, h = headers, e = meta.e, f = meta.f, D = q.now}
  log.append(target, {'', ''})
  record.create(target, target.seq, body, copy)
  record.enter(target, target.seq, copy, 'r')
  queue.save(target, 'seq', number.text(target.seq))
  volatile.wake(target.name, 1)
  return true
end

-- A record (in no index) has used up its attempts, or failed for good.
function life.die(q, id, meta, why)
  queue.count(q, 'dead', 1)
  record.free_dedup(q, id, meta)
  if meta.x then
    server.call('ZREM', q.prefix .. 'expiry', id)
    meta.x = nil
  end
  meta.D = q.now
  if q.limits and q.limits.dlq then
    meta.s = 'q'
    if push_elsewhere(q, id, meta, server.call('HGET', q.prefix .. 'body', id), why) then
      record.drop(q, id, meta)
      return
    end
  end
  record.enter(q, id, meta, 'q', q.now)
  local _, retention = queue.rules(q)
  if retention > 0 then
    queue.note_due(q, q.now + retention)
  end
end

-- A record was removed because its TTL was over.
function life.expire(q, id, meta)
  record.drop(q, id, meta)
  queue.count(q, 'expired', 1)
end

function life.delay(q, id, meta, until_ms)
  record.enter(q, id, meta, 'd', until_ms)
  queue.note_due(q, until_ms)
end

-- The delivery of a record in flight has ended without an ack: back to ready, delayed, or dead.
-- delay_ms nil: by the queue's backoff.
function life.give_back(q, id, meta, delay_ms, why)
  if meta.c then
    record.drop(q, id, meta)
    return
  end
  if meta.x and meta.x <= q.now then
    life.expire(q, id, meta)
    return
  end
  record.leave(q, id, meta)
  if meta.a >= (meta.m or queue.rules(q)) then
    life.die(q, id, meta, why)
    return
  end
  delay_ms = delay_ms or life.backoff_ms(q, id, meta.a)
  if delay_ms > 0 then
    life.delay(q, id, meta, q.now + delay_ms)
  else
    record.enter(q, id, meta, 'r')
  end
end

local function due_ids(q, index, until_ms, limit)
  return server.call('ZRANGEBYSCORE', q.prefix .. index, '-inf', number.text(until_ms), 'LIMIT', 0, limit)
end

local function first_score(q, index)
  local first = server.call('ZRANGE', q.prefix .. index, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) or FOREVER
end

-- Do what is due, at most `limit` messages of each kind.  True if more is due.
function life.settle(q, limit)
  if q.now < q.due then
    return false
  end
  local more = false
  local function each(index, until_ms, act)
    local ids = due_ids(q, index, until_ms, limit)
    more = more or #ids == limit
    for _, id in ipairs(ids) do
      act(tonumber(id), id)
    end
  end
  local _, retention = queue.rules(q)
  each('inflight', q.now, function(id)
    local meta = record.load(q, id) or record.of_inflight(q, id)
    if meta then
      meta.f = q.now
      meta.e = 'lease expired'
      life.give_back(q, id, meta, nil, 'lease expired')
    else
      server.call('ZREM', q.prefix .. 'inflight', id)
    end
  end)
  each('delayed', q.now, function(id)
    local meta = record.load(q, id)
    record.leave(q, id, meta)
    record.enter(q, id, meta, 'r')
  end)
  each('expiry', q.now, function(id)
    local meta = record.load(q, id)
    if meta.s == 'i' then
      server.call('ZREM', q.prefix .. 'expiry', id) -- it is looked at when its delivery ends
    else
      life.expire(q, id, meta)
    end
  end)
  if retention > 0 then
    each('dlq', q.now - retention, function(id)
      record.drop(q, id, record.load(q, id))
    end)
  end
  each('windows', q.now, function(_, key)
    server.call('ZREM', q.prefix .. 'windows', key)
    server.call('HDEL', q.prefix .. 'dedup', key)
  end)
  for _, way in ipairs({'pause_in', 'pause_out'}) do
    local until_ms = q.limits and q.limits[way]
    if until_ms and until_ms <= q.now then
      q.limits[way] = nil
      queue.save_limits(q)
      if way == 'pause_out' then
        volatile.wake(q.name, FOREVER)
      end
    end
  end
  life.find_due(q, retention)
  return more
end

-- The next time at which something must be settled.
function life.find_due(q, retention)
  local due = math.min(first_score(q, 'inflight'), first_score(q, 'delayed'), first_score(q, 'expiry'),
    first_score(q, 'windows'))
  if retention > 0 then
    due = math.min(due, first_score(q, 'dlq') + retention)
  end
  if q.limits then
    due = math.min(due, q.limits.pause_in or FOREVER, q.limits.pause_out or FOREVER)
  end
  q.due = due
  q.due_changed = true
  if due < FOREVER then
    volatile.note(q.name, due)
  end
end

-- At the end of a function: write what settling left to be written, and wake who waits for what became ready.
function life.finish(q)
  if q.moved then
    queue.save_cursors(q)
  else
    queue.save(q)
  end
  if q.woken and not queue.paused(q, 'out') then
    volatile.wake(q.name, q.woken)
  end
end
