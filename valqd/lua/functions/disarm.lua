-- disarm: a daemon has no clients blocked on these queues any more.
-- Flags: allow-oom
-- KEYS: queues
-- ARGV: post (see volatile)
-- Returns: OK
-- Errors: none
-- Complexity: O(d) for d daemons that wait
local function call(keys, args)
  for _, key in ipairs(keys) do
    volatile.leave(key:sub(7, -8), args[1])
  end
  return {ok = 'OK'}
end
