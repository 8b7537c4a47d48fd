-- info: the map of INFO.
-- requires: number, waiters, queue, log, record

local info = {}

-- When the ready message with the smallest id was pushed, unix ms; nil if none is ready.
local function oldest_ready_at(q)
  local oldest, at = queue.FOREVER, nil
  if q.plain > 0 then
    log.each_ready(q, q.head, function(id, age)
      oldest, at = id, log.enqueued_at(q, age)
      return false
    end)
  end
  if server.call('ZCARD', q.prefix .. 'ready') > 0 then
    for priority = 0, record.MAX_PRIORITY do -- the first of each
      local from = number.text(-priority * record.PRIORITY_STEP)
      local to = number.text((1 - priority) * record.PRIORITY_STEP - 1)
      local id = server.call('ZRANGEBYSCORE', q.prefix .. 'ready', from, to, 'LIMIT', 0, 1)[1]
      if id and tonumber(id) < oldest then
        oldest, at = tonumber(id), (record.load(q, id) or {t = q.now}).t
      end
    end
  end
  return at
end

function info.map(q)
  local p = q.prefix
  local attempts, retention = queue.rules(q)
  local ready = queue.ready(q)
  local inflight = server.call('ZCARD', p .. 'inflight')
  local oldest = oldest_ready_at(q)
  local counters = server.call('HMGET', q.key, 'redelivered', 'dead', 'expired', 'nacked', 'cancelled', 'deduplicated',
    'dropped')
  for i = 1, 7 do
    counters[i] = tonumber(counters[i] or 0)
  end
  local bounds = q.limits or {}
  local paused_in, paused_out = queue.paused(q, 'in'), queue.paused(q, 'out')
  local backoff = false
  if bounds.backoff then
    local b = bounds.backoff
    backoff = b[1] .. ' ' .. number.seconds(b[2]) .. ' ' .. number.seconds(b[3])
    if b[4] > 0 then
      backoff = backoff .. ' JITTER ' .. b[4]
    end
  end
  return {map = {
    'visibility_timeout', number.seconds(q.vt),
    'max_delivery_attempts', attempts,
    'retention_period', number.seconds(retention),
    'id_sequence', q.seq,
    'msgs', ready + inflight,
    'ready_msgs', ready,
    'inflight_msgs', inflight,
    'delayed_msgs', server.call('ZCARD', p .. 'delayed'),
    'dlq_msgs', server.call('ZCARD', p .. 'dlq'),
    'created_at', q.created_at,
    'oldest_ready_age_ms', oldest and math.max(0, q.now - oldest) or 0,
    'pushed_total', q.seq,
    'delivered_total', q.delivered,
    'acked_total', q.acked,
    'redelivered_total', counters[1],
    'dead_total', counters[2],
    'expired_total', counters[3],
    'nacked_total', counters[4],
    'cancelled_total', counters[5],
    'deduplicated_total', counters[6],
    'dropped_total', counters[7],
    'blocked_clients', waiters.count(q.name, q.now),
    'paused', paused_in and (paused_out and 'ALL' or 'IN') or (paused_out and 'OUT' or 'NONE'),
    'backoff', backoff,
    'max_length', bounds.max_length or false,
    'max_bytes', bounds.max_bytes or false,
    'overflow', bounds.overflow or 'REFUSE',
    'dead_letter_queue', bounds.dlq or false,
    'max_lease', bounds.max_lease and number.seconds(bounds.max_lease) or false,
  }}
end
