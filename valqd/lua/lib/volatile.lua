-- volatile: what the library remembers outside the keyspace: it is gone after a restart, a failover or a new load.
-- requires: nothing
--
-- A daemon is here one worker process, by the name that it gave itself when it started.
--
-- timers      queue -> earliest ms at which it needs a sweep (the sweeper that gets its lease anew looks at every queue);
--             by name alone: queues of one name in several databases share it
-- slots       second -> names: set of the queues whose timer is in it, so that only what comes next is looked at; count: how
--             many these are, since it takes long to find that a table is empty which once was large
-- first       no slot is before this second
-- compacts    queues whose buckets may have become sparse
-- compact_at  ms from which these are to be swept
-- cursors     queue (see compact) -> where the walk over its buckets stopped
-- seen        daemon -> when it last gave a sign of life
-- known       daemon -> since when it has been known here: one that sees another time was forgotten, and registers again
-- sweeper     which daemon sweeps, until when, and for how long it asked for that

local volatile = {
  timers = {}, slots = {}, first = 1 / 0, compacts = {}, compact_at = 0, cursors = {}, seen = {}, known = {},
  sweeper = {owner = false, until_ms = 0, lease_ms = 0},
}
local DEAD_AFTER_MS = 3000
-- After so many seconds in which nobody asked, the slots are gone through instead of the seconds.
local LONG_PAUSE = 100

-- A sign of life of a daemon, given by itself or by one of its posts.
function volatile.alive(id, now)
  local daemon = id:match('[^/]*')
  volatile.seen[daemon] = now
  volatile.known[daemon] = volatile.known[daemon] or now
end

-- Whether a daemon, or a post's, may still be there; who was last seen far in the future, before the clock was set back,
-- is not.
function volatile.is_alive(id, now)
  local seen = volatile.seen[id:match('[^/]*')]
  return seen ~= nil and math.abs(now - seen) < DEAD_AFTER_MS
end

-- Forget daemons that are gone: true if there were any.
function volatile.forget_gone(now)
  local some_are_gone = false
  for daemon in pairs(volatile.seen) do
    if not volatile.is_alive(daemon, now) then
      volatile.seen[daemon] = nil
      volatile.known[daemon] = nil
      some_are_gone = true
    end
  end
  return some_are_gone
end

-- Queue `name` has no timer any more.
local function forget(name)
  local second = math.floor(volatile.timers[name] / 1000)
  local slot = volatile.slots[second]
  volatile.timers[name] = nil
  slot.names[name] = nil
  slot.count = slot.count - 1
  if slot.count == 0 then
    volatile.slots[second] = nil
  end
end

-- Queue `name` needs a sweep at `ms`.
function volatile.note(name, ms)
  local timer = volatile.timers[name]
  if timer and timer <= ms then
    return
  end
  if timer then
    forget(name)
  end
  local second = math.floor(ms / 1000)
  volatile.timers[name] = ms
  local slot = volatile.slots[second] or {names = {}, count = 0}
  volatile.slots[second] = slot
  slot.names[name] = true
  slot.count = slot.count + 1
  volatile.first = math.min(volatile.first, second)
end

-- The seconds up to `last` that have slots, from the first one on.
local function seconds(last)
  local found = {}
  if last - volatile.first < LONG_PAUSE then
    for second = volatile.first, last do
      found[#found + 1] = volatile.slots[second] and second
    end
  else
    for second in pairs(volatile.slots) do
      found[#found + 1] = second <= last and second or nil
    end
    table.sort(found)
  end
  return found
end

-- Move queues whose timer is over to the end of `result`, up to `last` items in all; when the next one is over, or a time
-- at which to ask again.
function volatile.take_due(now, result, last)
  local this = math.floor(now / 1000)
  local next_ms = math.huge
  for _, second in ipairs(seconds(this + 1)) do
    for name in pairs(volatile.slots[second].names) do
      local ms = volatile.timers[name]
      if ms > now then
        next_ms = math.min(next_ms, ms)
      elseif #result < last then
        result[#result + 1] = name
        forget(name)
      else
        volatile.first = second
        return now
      end
    end
  end
  volatile.first = this
  if next_ms == math.huge and next(volatile.slots) then
    next_ms = (this + 2) * 1000
  end
  return next_ms
end
