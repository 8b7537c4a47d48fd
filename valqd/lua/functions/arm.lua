-- arm: a daemon has clients blocked on queues: remember it, so that it is woken.
-- Flags: allow-oom
-- KEYS: queues
-- ARGV: post (see volatile), for each queue: how many clients are blocked, and for how many ms the first of them has been
-- Returns: for each queue [1 if a POP would get something, ms until the next timer or -1]
-- Errors: none
-- Complexity: O(log n) a queue

-- 1 if a POP would get something, else 0; and ms until the next timer, or -1.
local function look_at(key, now)
  local q = queue.open(key)
  if not q then
    return 0, -1
  end
  q.by_daemon = true
  life.settle(q, 200)
  local ready = not queue.paused(q, 'out') and (q.plain > 0 or server.call('ZCARD', q.prefix .. 'ready') > 0)
  life.finish(q)
  return ready and 1 or 0, q.due < FOREVER and math.max(0, q.due - now) or -1
end

local function call(keys, args)
  local exact = clock.exact()
  local now = math.floor(exact)
  volatile.alive(args[1], now)
  local results = {}
  for i, key in ipairs(keys) do
    local looked, ready, next_ms = pcall(look_at, key, now)
    if not looked then -- what is there is no queue: the others are armed all the same
      ready, next_ms = 0, -1
    end
    local name = key:sub(7, -8)
    volatile.block(name, args[1], tonumber(args[2 * i]))
    if ready == 0 then
      volatile.wait(name, args[1], exact - tonumber(args[2 * i + 1]))
    end
    results[i] = {ready, next_ms}
  end
  return results
end
