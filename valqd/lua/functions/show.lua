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
  local message = state and view.find(q, id)
  if not message then -- with a state: its slot is lost
    return reply.error(code or 'NOMSG', problem or 'no message ' .. number.text(id) .. " in queue '" .. q.name .. "'")
  end
  return reply.in_mode(message, args[1])
end
