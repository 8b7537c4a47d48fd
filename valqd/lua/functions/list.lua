-- list: one step through the names of the queues that the caller may read.
-- Flags: no-writes allow-cross-slot-keys
-- KEYS: none
-- ARGV: pattern ('' all), cursor ('0' at first)
-- Returns: [next cursor ('0': done), [name ...]]
-- Errors: none
-- Complexity: O(1) a step, O(n) for all n keys of the database
local function call(keys, args)
  return queue.names(args[1], args[2])
end
