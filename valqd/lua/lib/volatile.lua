-- volatile: what the library remembers outside the keyspace: it is gone after a restart, a failover or a new load.
-- requires: nothing
--
-- timers    queue -> earliest ms at which it needs a sweep (the sweeper that gets its lease anew looks at every queue);
--           by name alone: queues of one name in several databases share it, so a queue's deletion does not end it
-- compacts  queues whose buckets may have become sparse
-- waiting   queue -> daemons that have clients blocked on it, by how long the first of these has waited (they register
--           again every second)
-- sweeper   which daemon sweeps, and until when

local volatile = {timers = {}, compacts = {}, waiting = {}, sweeper = {owner = false, until_ms = 0}}

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

-- Remember that `daemon` waits on `name` with `count` clients, the first of them since `since`, until `expires_ms`; daemons
-- that did not register again are forgotten.
function volatile.wait(name, daemon, count, since, now, expires_ms)
  local line = {}
  local place = 1
  for _, other in ipairs(volatile.waiting[name] or {}) do
    if other.id ~= daemon and other.expires_ms > now then
      line[#line + 1] = other
      if other.since <= since then
        place = #line + 1
      end
    end
  end
  table.insert(line, place, {id = daemon, expires_ms = expires_ms, count = count, since = since})
  volatile.waiting[name] = line
end

function volatile.leave(name, daemon)
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
function volatile.blocked(name, now)
  local total = 0
  for _, daemon in ipairs(volatile.waiting[name] or {}) do
    if daemon.expires_ms > now then
      total = total + daemon.count
    end
  end
  return total
end
