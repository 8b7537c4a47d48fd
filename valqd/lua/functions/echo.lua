-- echo: answers what the daemon itself would, in its place among other replies.
-- Flags: no-writes
-- KEYS: none
-- ARGV: kind (error, status, bulk, integer, array), value ...
-- Returns: the value
-- Errors: any
-- Complexity: O(1)
local function call(keys, args)
  local kind = args[1]
  if kind == 'error' then
    return server.error_reply(args[2])
  elseif kind == 'status' then
    return {ok = args[2]}
  elseif kind == 'integer' then
    return tonumber(args[2])
  elseif kind == 'array' then
    return {unpack(args, 2)}
  end
  return args[2]
end
