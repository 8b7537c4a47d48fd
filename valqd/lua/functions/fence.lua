-- fence: a write that changes nothing, so that WAIT on this connection covers what was written before it.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: none
-- Returns: OK
-- Errors: none
-- Complexity: O(1)
local function call(keys, args)
  if server.call('EXISTS', keys[1]) == 1 then
    server.call('HINCRBY', keys[1], 'acked', 0)
  end
  return {ok = 'OK'}
end
