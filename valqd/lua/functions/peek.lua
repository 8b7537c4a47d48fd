-- peek: looks at messages of one state, in order; takes nothing, moves nothing.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, state (ready inflight delayed dlq), count, offset, '1' for the last ones first
-- Returns: array of maps, as show
-- Errors: NOQUEUE
-- Complexity: O(log n + count); ready also O(ids passed over / 128)
local MOST_AT_ONCE = 1000

local function call(keys, args)
  local q = queue.need(keys[1])
  life.settle(q, life.FULLY)
  queue.finish(q)
  local count = math.max(1, math.min(tonumber(args[3]), MOST_AT_ONCE))
  local offset, reverse = math.max(0, tonumber(args[4])), args[5] == '1'
  local messages = {}
  local ids
  if args[2] == 'ready' then
    ids = order.ready(q, count, offset, reverse)
  else
    ids = (reverse and order.by_time_reversed or order.by_time)(q, args[2], count, offset)
  end
  local weight = 0
  for i = 1, #ids do
    local message = view.find(q, ids[i]) -- nil: it is lost
    messages[#messages + 1] = message
    weight = weight + (message and view.weight(message) or 0)
    if weight >= record.MOST_BYTES then
      break
    end
  end
  return reply.in_mode(messages, args[1])
end
