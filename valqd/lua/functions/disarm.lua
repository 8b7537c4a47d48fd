-- disarm: a daemon has no clients blocked on these queues any more: what it was woken for meanwhile is for the next in line.
-- Flags: allow-oom
-- KEYS: queues
-- ARGV: post (see waiters)
-- Returns: OK
-- Errors: ERR
-- Complexity: O(d) a queue, for d daemons that wait

local function wake_next(key)
  local q = queue.open(key)
  if q then
    queue.wake(q)
  end
end

local function call(keys, args)
  for _, key in ipairs(keys) do
    waiters.leave(queue.name_of(key), args[1])
    pcall(wake_next, key) -- what is there may be no queue
  end
  return {ok = 'OK'}
end
