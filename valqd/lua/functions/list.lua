-- list: the names of the queues that the caller may read, in bounded steps.
-- Flags: no-writes allow-cross-slot-keys
-- KEYS: none
-- ARGV: mode, token of the last step ('' at first), pattern ('' all)
-- Returns: mode e: [names that this step found, token ('': done)]; mode n: all names; sorted
-- Errors: none
-- Complexity: O(n) for n keys of the database, in steps of about 1000
local function call(_, args)
  local seen, names = {}, {}
  local cursor = args[2] ~= '' and args[2] or '0'
  repeat
    local found
    cursor, found = queue.names(args[3], cursor)
    for _, name in ipairs(found) do
      if not seen[name] then
        seen[name] = true
        names[#names + 1] = name
      end
    end
  until cursor == '0' or reply.is_stepped(args[1])
  table.sort(names)
  if reply.is_stepped(args[1]) then
    return {names, cursor ~= '0' and cursor or ''}
  end
  return names
end
