-- echo: answers what the daemon itself would, in its place among other replies.
-- Flags: no-writes
-- KEYS: none
-- ARGV: kind (error, array), value ...
-- Returns: the error, or an array of simple strings
-- Errors: any
-- Complexity: O(1)
local function call(keys, args)
  if args[1] == 'error' then
    return server.error_reply(args[2])
  end
  local lines = {}
  for i = 2, #args do
    lines[i - 1] = {ok = args[i]}
  end
  return lines
end
