-- due: a daemon's sign of life; asks for the sweeper's lease, and for the queues that need a sweep now.
-- Flags: no-writes
-- KEYS: 1 valq::daemons, where nothing is: who may only use some queues has no rights on it
-- ARGV: daemon, lease ms, most names
-- Returns: [since when the daemon is known here], and when no other daemon sweeps […, 1 if the lease is new, ms after which to
--          ask again (-1: nothing is to come), name ...]; so too, without the lease, when somebody was woken and does not
--          ask: the sweeper may be gone
-- Errors: ERR
-- Complexity: O(q) for q queues with something to come within two seconds
local function call(keys, args)
  if keys[1] ~= 'valq::daemons' then
    return reply.error('ERR', 'due is called by daemons, with their key')
  end
  local now = clock.now()
  volatile.alive(args[1], now)
  local result = {volatile.known[args[1]], 0, -1}
  local lease_ms = tonumber(args[2])
  local last = 3 + tonumber(args[3])
  local sweeper = volatile.sweeper
  local left_ms = sweeper.until_ms - now -- more than a lease when the clock was set back: then nobody has it
  if sweeper.owner and sweeper.owner ~= args[1] and left_ms > 0 and left_ms <= sweeper.lease_ms then
    waiters.take_silent(now, result, last)
    return result[4] and result or {result[1]}
  end
  if volatile.forget_gone(now) then
    waiters.forget_gone(now)
  end
  result[2] = sweeper.owner ~= args[1] and 1 or 0
  sweeper.owner = args[1]
  sweeper.lease_ms = lease_ms
  sweeper.until_ms = now + lease_ms
  local compact_in_ms = volatile.compact_at - now
  if compact_in_ms <= 0 or compact_in_ms > compact.EVERY_MS then -- more: the clock was set back
    volatile.compact_at = now + compact.EVERY_MS
    for name in pairs(volatile.compacts) do
      volatile.note(name, now)
    end
    volatile.compacts = {}
  end
  local next_ms = math.min(volatile.take_due(now, result, last), waiters.take_silent(now, result, last))
  if next_ms < queue.FOREVER then
    result[3] = next_ms - now
  end
  return result
end
