-- mpop: takes messages from the first queues that have some.
-- Flags: allow-oom
-- KEYS: all queues, in the order in which they are asked
-- ARGV: mode, auto, count ('': one), vt ms or '', flags (N: NOACK, M: WITHMETA)
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
  local want = tonumber(args[3]) or 1
  local vt = tonumber(args[4])
  local noack = args[5]:find('N', 1, true) ~= nil
  local with_meta = args[5]:find('M', 1, true) ~= nil
  local messages = {}
  for _, key in ipairs(keys) do
    if #messages == want then
      break
    end
    local q = queue.open(key)
    if q then
      life.settle(q, 1000)
      local taken = pop.take(q, want - #messages, vt, noack)
      for i = 1, #taken.ids do
        messages[#messages + 1] = pop.delivery(q, taken, i, vt, noack, with_meta, q.name)
      end
      pop.finish(q, #taken.ids)
    end
  end
  if args[3] == '' then
    return reply.finish(messages[1] or false, mode)
  end
  return reply.finish(messages, mode)
end
