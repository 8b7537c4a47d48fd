-- del: removes messages from whatever state they are in.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, id or receipt ...
-- Returns: how many
-- Errors: NOQUEUE
-- Complexity: O(log n) a message
local function call(keys, args)
  local q = queue.need(keys[1])
  life.settle(q, life.BRIEFLY)
  local removed = 0
  for i = 2, #args do
    local id, state, meta = receipt.find(q, args[i])
    if state then
      record.remove(q, id, state, meta)
      removed = removed + 1
    end
  end
  volatile.compacts[q.name] = true
  queue.finish(q)
  return reply.in_mode(removed, args[1])
end
