-- nack_many: the nacks of several clients that say the same.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: kind (FAIL, SILENT, FATAL, RETURN), delay ms or '', reason or '', id or receipt ...
-- Returns: how many, when all were given back; else 1 or 0 for each
-- Errors: NOQUEUE
-- Complexity: O(log n) a message
local function call(keys, args)
  local q = queue.need(keys[1], queue.reused)
  life.settle(q, life.BRIEFLY)
  local count, results = receipt.nack(q, args[1], tonumber(args[2]), args[3], args, 4)
  queue.finish(q)
  return count == #args - 3 and count or results
end
