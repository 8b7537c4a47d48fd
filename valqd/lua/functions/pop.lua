-- pop: takes messages.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, auto, count ('': one), vt ms or '', flags (N: NOACK, M: WITHMETA)
-- Returns: map or null; with a count an array of maps
-- Errors: NOQUEUE
-- Complexity: O(log n) a message
local function call(keys, args)
  local mode, auto = args[1], args[2]
  local options = pop.options(args[3], args[4], args[5])
  local q = queue.open(keys[1])
  if not q then
    if auto == '' then
      return queue.missing(keys[1])
    end
    return reply.in_mode(options.many and {}, mode)
  end
  life.settle(q, life.FULLY)
  local taken = pop.take(q, options.want, options)
  local messages = {}
  for i = 1, #taken.ids do
    messages[i] = pop.delivery(q, taken, i, options)
  end
  pop.finish(q, #messages)
  return reply.in_mode(options.many and messages or messages[1] or false, mode)
end
