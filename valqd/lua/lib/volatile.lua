-- volatile: what the library remembers outside the keyspace: it is gone after a restart, a failover or a new load.
-- requires: nothing
--
-- timers    queue -> earliest ms at which it needs a sweep (the sweeper that gets its lease anew looks at every queue);
--           by name alone: queues of one name in several databases share it, so a queue's deletion does not end it
-- compacts  queues whose buckets may have become sparse
-- waiting   queue -> daemons to wake when it gets something, by how long the first of their clients has waited
-- blocked   queue -> daemon -> how many clients it has blocked there
-- seen      daemon -> when it last gave a sign of life
-- epoch     when this memory began: daemons that see another one register again
-- sweeper   which daemon sweeps, and until when

local volatile = {timers = {}, compacts = {}, waiting = {}, blocked = {}, seen = {},
  sweeper = {owner = false, until_ms = 0}}
local DEAD_AFTER_MS = 3000

-- A sign of life.
function volatile.alive(daemon, now)
  volatile.epoch = volatile.epoch or now
  volatile.seen[daemon] = now
end

-- Whether a daemon may still be there.
local function is_alive(daemon, now)
  return (volatile.seen[daemon] or 0) + DEAD_AFTER_MS > now
end

-- Forget daemons that are gone.
function volatile.bury(now)
  for daemon in pairs(volatile.seen) do
    if not is_alive(daemon, now) then
      volatile.seen[daemon] = nil
      for name in pairs(volatile.blocked) do
        volatile.leave(name, daemon)
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

-- `count` messages became ready: wake as many waiting daemons, each by its own key (it has it tracked).
function volatile.wake(name, count)
  local line = volatile.waiting[name]
  if not line then
    return
  end
  while count > 0 and line[1] do
    local daemon = table.remove(line, 1)
    local key = 'valq:{' .. name .. '}:wake:' .. daemon.id
    server.pcall('SET', key, '', 'PX', 1)
    server.pcall('UNLINK', key) -- its expiry would wake the daemon again, if it had it tracked again by then
    count = count - 1
  end
  if not line[1] then
    volatile.waiting[name] = nil
  end
end

-- `daemon` has `count` clients blocked on `name`.
function volatile.block(name, daemon, count)
  volatile.blocked[name] = volatile.blocked[name] or {}
  volatile.blocked[name][daemon] = count
end

-- `daemon` is to be woken for `name`; the first of its clients has waited since `since`.
function volatile.wait(name, daemon, since)
  local line = {}
  local place = 1
  for _, other in ipairs(volatile.waiting[name] or {}) do
    if other.id ~= daemon then
      line[#line + 1] = other
      if other.since <= since then
        place = #line + 1
      end
    end
  end
  table.insert(line, place, {id = daemon, since = since})
  volatile.waiting[name] = line
end

-- `daemon` has no clients blocked on `name` any more.
function volatile.leave(name, daemon)
  local blocked = volatile.blocked[name]
  if blocked then
    blocked[daemon] = nil
    if not next(blocked) then
      volatile.blocked[name] = nil
    end
  end
  local line = volatile.waiting[name]
  if not line then
    return
  end
  for i = #line, 1, -1 do
    if line[i].id == daemon then
      table.remove(line, i)
    end
  end
  if not line[1] then
    volatile.waiting[name] = nil
  end
end

-- Clients blocked on `name`, as their daemons reported them; those of a daemon that is gone count no more.
function volatile.blocked_on(name, now)
  local total = 0
  for daemon, count in pairs(volatile.blocked[name] or {}) do
    if is_alive(daemon, now) then
      total = total + count
    end
  end
  return total
end
