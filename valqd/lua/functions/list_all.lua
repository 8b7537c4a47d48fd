-- list_all: the names of all queues that the caller may read, at once (inside a transaction).
-- Flags: no-writes allow-cross-slot-keys
-- KEYS: none
-- ARGV: mode, pattern ('' all)
-- Returns: sorted array of names
-- Errors: none
-- Complexity: O(n) for n keys of the database
local function call(keys, args)
  local seen, names = {}, {}
  local cursor = '0'
  repeat
    local step = queue.names(args[2], cursor)
    cursor = step[1]
    for _, name in ipairs(step[2]) do
      if not seen[name] then
        seen[name] = true
        names[#names + 1] = name
      end
    end
  until cursor == '0'
  table.sort(names)
  return reply.in_mode(names, args[1])
end
