-- arm: a daemon has clients blocked on queues: remember it, so that it is woken.
-- Flags: allow-oom
-- KEYS: queues
-- ARGV: daemon, ms until it is forgotten unless it registers again, for each queue: how many clients are blocked, and for
--       how many ms the first of them has been
-- Returns: for each queue [1 if a POP would get something, ms until the next timer or -1]
-- Errors: none
-- Complexity: O(log n) a queue
local function call(keys, args)
  local now = clock.now()
  local results = {}
  for i, key in ipairs(keys) do
    local q = queue.open(key)
    local ready, next_ms = 0, -1
    if q then
      life.settle(q, 200)
      if not queue.paused(q, 'out') and (q.plain > 0 or server.call('ZCARD', q.prefix .. 'ready') > 0) then
        ready = 1
      end
      life.finish(q)
      if q.due < FOREVER then
        next_ms = math.max(0, q.due - now)
      end
    end
    if ready == 0 then
      local count, waited = tonumber(args[2 * i + 1]) or 1, tonumber(args[2 * i + 2]) or 0
      volatile.wait(key:sub(7, -8), args[1], count, now - waited, now, now + tonumber(args[2]))
    end
    results[i] = {ready, next_ms}
  end
  return results
end
