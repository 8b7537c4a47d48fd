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
  life.finish(q)
  local id, n = receipt.parse(args[2])
  local state, meta = record.find(q, id)
  if not state then
    return reply.error('NOMSG', 'no message ' .. args[2]:match('%d+') .. " in queue '" .. q.name .. "'")
  end
  if n and not receipt.is_current(q, id, n, state, meta) then
    return reply.error('STALE', 'the lease of receipt ' .. args[2] .. ' is over')
  end
  return reply.in_mode(view.find(q, id), args[1])
end
