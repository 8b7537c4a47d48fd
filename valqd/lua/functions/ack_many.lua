-- ack_many: the acks of several clients.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: id or receipt ...
-- Returns: how many, when all were acked; else 1 or 0 for each
-- Errors: NOQUEUE
-- Complexity: O(log n) a message
local function call(keys, args)
  local q = queue.need(keys[1], queue.reused)
  life.settle(q, life.BRIEFLY)
  local acked, results = receipt.ack(q, args, 1)
  queue.finish(q)
  return acked == #args and acked or results
end
