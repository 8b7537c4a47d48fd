-- nack: gives messages back.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, kind (FAIL, SILENT, FATAL), delay ms or '', reason or '', id or receipt ...
-- Returns: how many
-- Errors: NOQUEUE
-- Complexity: O(log n) a message
local function call(keys, args)
  local q = queue.need(keys[1])
  life.settle(q, life.BRIEFLY)
  local count = receipt.nack(q, args[2], tonumber(args[3]), args[4], args, 5)
  queue.finish(q)
  return reply.in_mode(count, args[1])
end
