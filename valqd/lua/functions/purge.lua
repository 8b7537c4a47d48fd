-- purge: removes all messages of some states, in bounded steps, as far as they were there at the first step.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, token of the last step ('' at first), states (main ready inflight delayed dlq all)
-- Returns: mode e: [removed by this step, token ('': done)]; mode n: removed in all
-- Errors: NOQUEUE
-- Complexity: O(m log n) for m messages removed, in steps of 2000
local function call(keys, args)
  local removed, token = 0, args[2]
  local q = queue.open(keys[1])
  if not q then -- of a later step this is no error: messages were removed
    return token == '' and queue.missing(keys[1]) or {0, ''}
  end
  token = token ~= '' and token or purge.begin(q)
  while life.settle(q, life.FULLY) do
    if reply.is_stepped(args[1]) then -- nothing removed yet: go on with the states as they have become
      queue.finish(q)
      return {0, token}
    end
  end
  if letters.forward_first(q, reply.is_stepped(args[1])) then
    queue.finish(q)
    return {0, token}
  end
  repeat
    local step
    step, token = purge.step(q, purge.INDEXES[args[3]], token)
    removed = removed + step
  until token == '' or reply.is_stepped(args[1])
  volatile.compacts[q.name] = true
  queue.finish(q)
  if reply.is_stepped(args[1]) then
    return {removed, token}
  end
  return removed
end
