-- update: changes what is named of a queue's configuration; an empty value removes an option.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, then field, value ... as create
-- Returns: OK
-- Errors: NOQUEUE ERR
-- Complexity: O(1)
local function call(keys, args)
  local q = queue.open(keys[1])
  if not q then
    return queue.missing(keys[1])
  end
  life.settle(q, 100)
  local settings, problem = limits.parse(keys[1], q.limits or {}, args, 2)
  if problem then
    life.finish(q)
    return problem
  end
  limits.note_target(q.name, q.limits, settings.limits)
  q.limits = settings.limits
  queue.save_limits(q)
  for field, value in pairs({vt = settings.vt, attempts = settings.attempts, retention = settings.retention}) do
    server.call('HSET', q.key, field, value)
  end
  q.attempts = nil
  if q.limits.max_bytes then
    volatile.note(q.name, q.now) -- what is there already is counted by the sweeper, but for a first step now
    compact.step(q)
  end
  local _, retention = queue.rules(q)
  life.find_due(q, retention)
  life.finish(q)
  return reply.finish({ok = 'OK'}, args[1])
end
