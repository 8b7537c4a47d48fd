-- info: what there is to know of a queue; counts are exact now.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode
-- Returns: map; nil in mode e: more has to be settled first, call again
-- Errors: NOQUEUE
-- Complexity: O(log n), and O(log n) for each message that is due
local function call(keys, args)
  local q = queue.need(keys[1])
  while life.settle(q, life.FULLY) do
    if reply.is_stepped(args[1]) then
      queue.finish(q)
      return nil
    end
  end
  queue.save(q)
  local map = info.map(q)
  queue.finish(q)
  return reply.in_mode(map, args[1])
end
