-- arm: a daemon has clients blocked on queues: remember it, so that it is woken.
-- Flags: allow-oom
-- KEYS: queues
-- ARGV: post, for each queue: how many clients are blocked, and the places of the first of them (see waiters)
-- Returns: for each queue [1 if there is something for these clients, ms until the next timer or -1]
-- Errors: ERR
-- Complexity: O(log n) a queue

-- 1 if there is something for `post`, else 0; and ms until the next timer, or -1.
local function look_at(key, post)
  local q = queue.open(key)
  if not q then
    return 0, -1
  end
  q.by_daemon = true
  life.settle(q, life.BRIEFLY)
  local ready = queue.available(q)
  local is_theirs = ready > 0 and waiters.turn(q.name, post, ready, q.now) > 0
  if is_theirs then
    waiters.expect(q.name, post, q.now)
  end
  q.woken = ready > 0
  life.finish(q)
  return is_theirs and 1 or 0, q.due < queue.FOREVER and math.max(0, q.due - q.now) or -1
end

local function call(keys, args)
  local exact = clock.exact()
  local post = args[1]
  volatile.alive(post, math.floor(exact))
  local results = {}
  for i, key in ipairs(keys) do
    waiters.join(queue.name_of(key), post, tonumber(args[2 * i]), args[2 * i + 1], exact)
    local looked, ready, next_ms = pcall(look_at, key, post)
    results[i] = looked and {ready, next_ms} or {0, -1} -- what is there is no queue: the others are armed all the same
  end
  return results
end
