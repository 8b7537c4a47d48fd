-- pop: takes messages.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, auto, count ('': one), vt ms or '', flags (N: NOACK, M: WITHMETA)
-- Returns: map or null; with a count an array of maps
-- Errors: NOQUEUE
-- Complexity: O(log n) a message
local function call(keys, args)
  local mode, auto = args[1], args[2]
  local q = queue.open(keys[1])
  if not q then
    if auto == '' then
      return queue.missing(keys[1])
    end
    return reply.finish(args[3] ~= '' and {}, mode)
  end
  life.settle(q, 1000)
  local vt = tonumber(args[4])
  local noack = args[5]:find('N', 1, true) ~= nil
  local with_meta = args[5]:find('M', 1, true) ~= nil
  local taken = pop.take(q, tonumber(args[3]) or 1, vt, noack)
  local messages = {}
  for i = 1, #taken.ids do
    messages[i] = pop.delivery(q, taken, i, vt, noack, with_meta)
  end
  pop.finish(q, #messages)
  if args[3] == '' then
    return reply.finish(messages[1] or false, mode)
  end
  return reply.finish(messages, mode)
end
