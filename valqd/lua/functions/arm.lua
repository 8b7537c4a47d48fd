-- arm: a daemon has clients blocked on queues: remember it, so that it is woken.
-- Flags: allow-oom
-- KEYS: queues
-- ARGV: post, for each queue: how many clients are blocked, and the places of the first of them (see waiters)
-- Returns: for each queue [1 if there is something for these clients, ms until the next timer or -1]
-- Errors: ERR
-- Complexity: O(log n) a queue

local MAX_POST_BYTES = 64
local LOOK_AGAIN_MS = 1000

-- 1 if there is something for `post`, else 0; ms until the next timer, or -1; and how many messages were settled for that.
local function look_at(key, post, may_settle)
  local q = queue.open(key)
  if not q then
    return 0, -1, 0
  end
  if may_settle then
    life.settle(q, life.BRIEFLY)
  end
  local ready = queue.available(q)
  local is_theirs = ready > 0 and waiters.turn(q.name, post, ready, q.now) > 0
  if is_theirs then
    waiters.expect(q.name, post, q.now)
  end
  q.wakes = ready > 0
  queue.finish(q)
  return is_theirs and 1 or 0, q.due < queue.FOREVER and math.max(0, q.due - q.now) or -1, q.settled
end

local function call(keys, args)
  local exact = clock.exact()
  local post = args[1]
  if #post > MAX_POST_BYTES or not keys[1] then -- of no daemon
    error('ERR this is no registration of clients that wait', 0)
  end
  volatile.alive(post, math.floor(exact))
  local results = {}
  local settled = 0 -- where more is due, the timer is over at once: one call is not to hold up everybody
  for i, key in ipairs(keys) do
    local joined = pcall(waiters.join, queue.name_of(key), post, tonumber(args[2 * i]), args[2 * i + 1], exact)
    if not joined then
      results[i] = {0, LOOK_AGAIN_MS} -- nothing wakes them
    else
      local looked, ready, next_ms, count = pcall(look_at, key, post, settled < life.FULLY)
      settled = settled + (looked and count or 0)
      if not looked then
        queue.distrust(key)
      end
      results[i] = looked and {ready, next_ms} or {0, -1} -- what is there is no queue: the others are armed all the same
    end
  end
  return results
end
