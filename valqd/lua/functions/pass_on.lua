-- pass_on: a daemon was woken for nobody: wake the next one if something is ready.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: none
-- Returns: OK
-- Errors: none
-- Complexity: O(1)
local function call(keys, args)
  local q = queue.open(keys[1])
  if q and (q.plain > 0 or server.call('ZCARD', q.prefix .. 'ready') > 0) then
    volatile.wake(q.name, 1)
  end
  return {ok = 'OK'}
end
