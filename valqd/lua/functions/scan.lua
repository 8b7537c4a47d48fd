-- scan: walks through all messages, a bounded step at a time, with SCAN's guarantees.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, cursor, state ('' any), header field, header value, body pattern ('' any), count, '1' if a header is given
-- Returns: [next cursor, [map ...]]
-- Errors: NOQUEUE ERR
-- Complexity: O(count) a step, of at most MAX_STEP; with a pattern for each byte of the bodies, of less at a time
-- A client that wants more at once must not hold up the others; and to look for a pattern takes time for each byte.
local MAX_STEP = 1000
local MAX_PATTERN_STEP = 100
local MAX_PATTERN_BYTES = 262144

local function call(keys, args)
  local q = queue.need(keys[1])
  if not walk.is_cursor(q, tonumber(args[2])) then
    return reply.error('ERR', "invalid cursor '" .. args[2] .. "': must be 0, or the cursor of the last reply")
  end
  glob.check(args[6])
  life.settle(q, life.FULLY)
  queue.finish(q)
  local has_pattern = args[6] ~= ''
  local most = has_pattern and MAX_PATTERN_STEP or MAX_STEP
  local most_bytes = has_pattern and MAX_PATTERN_BYTES or record.MOST_BYTES
  local cursor, left, looked = tonumber(args[2]), math.min(tonumber(args[7]), most), 0
  local messages = {}
  local found, phase
  repeat
    cursor, found, phase = walk.step(q, cursor, left)
    left = left - math.max(1, #found)
    for _, id in ipairs(found) do
      if looked >= most_bytes and phase then
        cursor = 4 * id + phase
        break
      end
      local message = view.find(q, id)
      looked = looked + (message and view.weight(message) or 0)
      if message and walk.matches(message, args[3], args[8] == '1' and args[4], args[5], args[6]) then
        messages[#messages + 1] = message
      end
    end
  until phase or cursor == 0 or left <= 0 or looked >= most_bytes
  return reply.in_mode({number.text(cursor), messages}, args[1])
end
