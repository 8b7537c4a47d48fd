-- ack: acknowledges messages.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, id or receipt ...
-- Returns: how many
-- Errors: NOQUEUE
-- Complexity: O(log n) a message
local function call(keys, args)
  local q = queue.need(keys[1])
  life.settle(q, life.BRIEFLY)
  local acked = receipt.ack(q, args, 2)
  queue.finish(q)
  return reply.in_mode(acked, args[1])
end
