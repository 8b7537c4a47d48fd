-- del: removes messages from whatever state they are in.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, id or receipt ...
-- Returns: how many
-- Errors: NOQUEUE
-- Complexity: O(log n) a message
local function call(keys, args)
  local q = queue.open(keys[1])
  if not q then
    return queue.missing(keys[1])
  end
  life.settle(q, 200)
  local removed = 0
  for i = 2, #args do
    local id, n = receipt.parse(args[i])
    local where, meta = record.find(q, id)
    if where and (not n or receipt.is_current(q, id, n, where, meta)) then
      record.remove(q, id, where, meta)
      removed = removed + 1
    end
  end
  volatile.compacts[q.name] = true
  life.finish(q)
  return reply.finish(removed, args[1])
end
