-- extend: moves the deadline of a delivery to now + ms.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, id or receipt, ms
-- Returns: the deadline, unix ms
-- Errors: NOQUEUE NOMSG NOTINFLIGHT STALE CANCELLED
-- Complexity: O(log n)
local function call(keys, args)
  local q = queue.need(keys[1])
  life.settle(q, life.BRIEFLY)
  local deadline, code, text = receipt.extend(q, args[2], tonumber(args[3]))
  queue.finish(q)
  if not deadline then
    return reply.error(code, text)
  end
  return reply.in_mode(deadline, args[1])
end
