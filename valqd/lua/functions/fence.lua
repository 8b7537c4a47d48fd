-- fence: a write that changes nothing, so that WAIT on this connection covers what was written before it.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: none
-- Returns: OK
-- Errors: none
-- Complexity: O(1)
local function call(keys, args)
  local key = keys[1]:sub(1, -6) .. 'fence'
  server.call('SET', key, '')
  server.call('DEL', key)
  return {ok = 'OK'}
end
