-- show: all that is known of one message.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, id
-- Returns: map
-- Errors: NOQUEUE NOMSG
-- Complexity: O(log n)
local function call(keys, args)
  local q = queue.open(keys[1])
  if not q then
    return queue.missing(keys[1])
  end
  life.settle(q, 1000)
  life.finish(q)
  local found = view.find(q, (receipt.parse(args[2])))
  if not found then
    return reply.error('NOMSG', 'no message ' .. args[2] .. " in queue '" .. q.name .. "'")
  end
  return reply.finish(found, args[1])
end
