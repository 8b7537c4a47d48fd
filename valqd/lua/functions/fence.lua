-- fence: a write that changes nothing, so that WAIT on this connection covers what was written before it.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: none
-- Returns: OK
-- Errors: none
-- Complexity: O(1)
local function call(keys, args)
  if server.call('EXISTS', keys[1]) == 1 then
    server.call('HINCRBY', keys[1], 'bytes', 0)
  else -- what came before may have been the queue's deletion
    local key = keys[1]:sub(1, -6) .. 'fence'
    server.call('SET', key, '')
    server.call('DEL', key)
  end
  return {ok = 'OK'}
end
