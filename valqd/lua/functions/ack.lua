-- ack: acknowledges messages.
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
  local acked = receipt.ack(q, args, 2)
  life.finish(q)
  return reply.finish(acked, args[1])
end
