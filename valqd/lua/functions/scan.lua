-- scan: walks through all messages, a bounded step at a time, with SCAN's guarantees.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, cursor, state ('' any), header field, header value, body pattern ('' any), count, '1' if a header is given
-- Returns: [next cursor, [map ...]]
-- Errors: NOQUEUE ERR
-- Complexity: O(count) a step, of at most MAX_STEP
local MAX_STEP = 1000 -- a client that wants more at once must not hold up the others

local function call(keys, args)
  local q = queue.need(keys[1])
  if not walk.is_cursor(q, tonumber(args[2])) then
    return reply.error('ERR', "invalid cursor '" .. args[2] .. "': must be 0, or the cursor of the last reply")
  end
  life.settle(q, life.FULLY)
  queue.finish(q)
  local cursor, found = walk.step(q, tonumber(args[2]), math.min(tonumber(args[7]), MAX_STEP))
  local messages = {}
  for _, id in ipairs(found) do
    local message = view.find(q, id)
    if message and walk.matches(message, args[3], args[8] == '1' and args[4], args[5], args[6]) then
      messages[#messages + 1] = message
    end
  end
  return reply.in_mode({number.text(cursor), messages}, args[1])
end
