-- mpop: takes messages from the first queues that have some.
-- Flags: allow-oom
-- KEYS: all queues, in the order in which they are asked
-- ARGV: mode, auto, count ('': one), vt ms or '', flags (N: NOACK, M: WITHMETA), its post if it has waited in line
-- Returns: as pop, with `queue` in each map
-- Errors: NOQUEUE
-- Complexity: O(k) for k queues, O(log n) a message
local function call(keys, args)
  local mode, auto = args[1], args[2]
  if auto == '' then
    for _, key in ipairs(keys) do
      if server.call('EXISTS', key) == 0 then
        return queue.missing(key)
      end
    end
  end
  local options = pop.options(args[3], args[4], args[5], args[6])
  local messages = {}
  local settled = 0 -- where more fell due at once, the sweeper goes on: one call is not to hold up everybody
  local function take_from(key)
    local q = queue.open(key)
    if not q then
      return
    end
    if settled < life.FULLY then
      life.settle(q, life.FULLY)
      settled = settled + q.settled
    end
    local taken, weight = pop.take(q, options.want - #messages, options)
    options.room = options.room - weight
    for i = 1, #taken.ids do
      messages[#messages + 1] = pop.delivery(q, taken, i, options, q.name)
    end
    pop.finish(q, #taken.ids)
  end
  for _, key in ipairs(keys) do
    if #messages == options.want or options.room <= 0 then
      break
    end
    local taken, problem = pcall(take_from, key)
    if not taken and messages[1] then
      queue.distrust(key)
      break -- a key that is no queue's: what was taken of others is delivered, and the next call tells
    elseif not taken then
      error(problem, 0)
    end
  end
  return reply.in_mode(options.many and messages or messages[1] or false, mode)
end
