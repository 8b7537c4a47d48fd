-- info: what there is to know of a queue; counts are exact now.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode
-- Returns: map; nil in mode e: more has to be settled first, call again
-- Errors: NOQUEUE
-- Complexity: O(log n), and O(log n) for each message that is due
local function call(keys, args)
  local q = queue.open(keys[1])
  if not q then
    return queue.missing(keys[1])
  end
  while life.settle(q, 1000) do
    if reply.is_stepped(args[1]) then
      life.finish(q)
      return nil
    end
  end
  queue.save(q)
  local map = info.map(q)
  life.finish(q)
  return reply.finish(map, args[1])
end
