-- guard: what Valkey refuses (NOPERM, WRONGTYPE, OOM ...) reaches the caller in Valkey's words, and an error that a helper
-- raises to end the call (NOQUEUE, PAUSED) in the helper's.
-- requires: queue, reply

local guard = {}

-- `call`, with errors that were raised in it returned: raised, they would end with a place in this library.
function guard.wrap(call)
  return function(keys, args)
    queue.given_key = false
    local done, result = pcall(call, keys, args)
    if done then
      return result
    end
    local text = type(result) == 'table' and result.err or result -- a table or its text, by Valkey's version
    if text ~= reply.last_error then
      for _, key in ipairs(keys) do
        queue.distrust(key)
      end
    end
    text = text:gsub('^ERR ACL failure in script: ', 'NOPERM ') -- what it would have said outside of a function
    if text:find('^%u+ ') then
      return {err = text}
    end
    error(result, 0) -- a mistake of this library: its place is wanted
  end
end
