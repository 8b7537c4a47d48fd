-- volatile: what the library remembers outside the keyspace: it is gone after a restart, a failover or a new load.
-- requires: nothing
--
-- timers      queue -> earliest ms at which it needs a sweep (the sweeper that gets its lease anew looks at every queue);
--             by name alone: queues of one name in several databases share it, so a queue's deletion does not end it
-- compacts    queues whose buckets may have become sparse
-- compact_at  ms from which these are to be swept
-- cursors     queue -> where compact's walk over its buckets stopped
-- seen        daemon -> when it last gave a sign of life
-- known       daemon -> since when it has been known here: one that sees another time was forgotten, and registers again
-- sweeper     which daemon sweeps, and until when

local volatile = {
  timers = {}, compacts = {}, compact_at = 0, cursors = {}, seen = {}, known = {},
  sweeper = {owner = false, until_ms = 0},
}
local DEAD_AFTER_MS = 3000

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
function volatile.bury(now)
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

-- Queue `name` needs a sweep at `ms`.
function volatile.note(name, ms)
  local timer = volatile.timers[name]
  if not timer or ms < timer then
    volatile.timers[name] = ms
  end
end
