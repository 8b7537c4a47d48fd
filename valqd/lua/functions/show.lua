-- show: all that is known of one message.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, id or receipt
-- Returns: map
-- Errors: NOQUEUE NOMSG STALE
-- Complexity: O(log n)
local function call(keys, args)
  local q = queue.need(keys[1])
  life.settle(q, life.FULLY)
  queue.finish(q)
  local id, state, _, code, problem = receipt.find(q, args[2])
  if not state then
    return reply.error(code, problem)
  end
  return reply.in_mode(view.find(q, id), args[1])
end
