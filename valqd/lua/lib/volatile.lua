-- volatile: what the library remembers outside the keyspace: it is gone after a restart, a failover or a new load.
-- requires: nothing
--
-- timers    queue -> earliest ms at which it needs a sweep (the sweeper that gets its lease anew looks at every queue);
--           by name alone: queues of one name in several databases share it, so a queue's deletion does not end it
-- compacts  queues whose buckets may have become sparse
-- waiting   queue -> posts to wake when it gets something, by how long the first of their clients has waited
-- blocked   queue -> post -> how many clients are blocked there
-- seen      daemon -> when it last gave a sign of life
-- epoch     when this memory began: daemons that see another one register again
-- sweeper   which daemon sweeps, and until when
--
-- A post is a daemon's clients that wait in one database: 'daemon/database'.  A function does not know in which database
-- it runs: it wakes posts of every one, those of another find nothing and register again.

local volatile = {timers = {}, compacts = {}, waiting = {}, blocked = {}, seen = {},
  sweeper = {owner = false, until_ms = 0}}
local DEAD_AFTER_MS = 3000

-- A sign of life of a daemon, given by itself or by one of its posts.
function volatile.alive(id, now)
  volatile.epoch = volatile.epoch or now
  volatile.seen[id:match('[^/]*')] = now
end

-- Whether a daemon, or a post's, may still be there.
local function is_alive(id, now)
  return (volatile.seen[id:match('[^/]*')] or 0) + DEAD_AFTER_MS > now
end

-- Forget daemons that are gone.
function volatile.bury(now)
  local some_are_gone = false
  for daemon in pairs(volatile.seen) do
    if not is_alive(daemon, now) then
      volatile.seen[daemon] = nil
      some_are_gone = true
    end
  end
  for name, posts in pairs(some_are_gone and volatile.blocked or {}) do
    for post in pairs(posts) do
      if not is_alive(post, now) then
        volatile.leave(name, post)
      end
    end
  end
end

-- Queue `name` needs a sweep at `ms`.
function volatile.note(name, ms)
  local timer = volatile.timers[name]
  if not timer or ms < timer then
    volatile.timers[name] = ms
  end
end

-- `count` messages became ready: wake as many posts of a database, each by its own key (its daemon has it tracked).
function volatile.wake(name, count)
  local line = volatile.waiting[name]
  if not line then
    return
  end
  local woken, rest = {}, {}
  for _, waiting in ipairs(line) do
    local db = waiting.post:match('/.*') or ''
    woken[db] = (woken[db] or 0) + 1
    if woken[db] > count then
      rest[#rest + 1] = waiting
    else
      local key = 'valq:{' .. name .. '}:wake:' .. waiting.post
      server.pcall('SET', key, '', 'PX', 1)
      server.pcall('UNLINK', key) -- its expiry would wake the daemon again, if it had it tracked again by then
    end
  end
  volatile.waiting[name] = rest[1] and rest
end

-- A post has `count` clients blocked on `name`.
function volatile.block(name, post, count)
  volatile.blocked[name] = volatile.blocked[name] or {}
  volatile.blocked[name][post] = count
end

-- A post is to be woken for `name`; the first of its clients has waited since `since`.
function volatile.wait(name, post, since)
  local line = {}
  local place = 1
  for _, other in ipairs(volatile.waiting[name] or {}) do
    if other.post ~= post then
      line[#line + 1] = other
      if other.since <= since then
        place = #line + 1
      end
    end
  end
  table.insert(line, place, {post = post, since = since})
  volatile.waiting[name] = line
end

-- A post has no clients blocked on `name` any more.
function volatile.leave(name, post)
  local blocked = volatile.blocked[name]
  if blocked then
    blocked[post] = nil
    if not next(blocked) then
      volatile.blocked[name] = nil
    end
  end
  local line = volatile.waiting[name]
  if not line then
    return
  end
  for i = #line, 1, -1 do
    if line[i].post == post then
      table.remove(line, i)
    end
  end
  if not line[1] then
    volatile.waiting[name] = nil
  end
end

-- Clients blocked on `name`, in any database, as their daemons reported them; those of a daemon that is gone count no
-- more.
function volatile.blocked_on(name, now)
  local total = 0
  for post, count in pairs(volatile.blocked[name] or {}) do
    if is_alive(post, now) then
      total = total + count
    end
  end
  return total
end
