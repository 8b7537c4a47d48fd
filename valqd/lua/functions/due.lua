-- due: a daemon's sign of life; asks for the sweeper's lease, and for the queues that need a sweep now.
-- Flags: no-writes
-- KEYS: none
-- ARGV: daemon, lease ms, most names
-- Returns: [since when the daemon is known here], and when no other daemon sweeps […, 1 if the lease is new, ms until the next
--          or -1, name ...]
-- Errors: none
-- Complexity: O(q) for q queues with something to come
local function call(keys, args)
  local now = clock.now()
  volatile.alive(args[1], now)
  local sweeper = volatile.sweeper
  if sweeper.owner and sweeper.owner ~= args[1] and sweeper.until_ms > now then
    return {volatile.known[args[1]]}
  end
  if volatile.bury(now) then
    waiters.bury(now)
  end
  local fresh = sweeper.owner ~= args[1] and 1 or 0
  sweeper.owner = args[1]
  sweeper.until_ms = now + tonumber(args[2])
  local limit = tonumber(args[3])
  local result = {volatile.known[args[1]], fresh, -1}
  local next_ms = FOREVER
  if now >= volatile.compact_at then
    volatile.compact_at = now + COMPACT_EVERY_MS
    for name in pairs(volatile.compacts) do
      volatile.note(name, now)
    end
    volatile.compacts = {}
  end
  for _, times in ipairs({volatile.timers, waiters.checks}) do
    for name, ms in pairs(times) do
      if ms > now then
        next_ms = math.min(next_ms, ms)
      elseif #result < limit + 3 then
        result[#result + 1] = name
        times[name] = nil
      end
    end
  end
  if next_ms < FOREVER then
    result[3] = next_ms - now
  end
  return result
end
