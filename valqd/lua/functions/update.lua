-- update: changes what is named of a queue's configuration; an empty value removes an option.  Without any it goes on
-- with counting what was there before max_bytes.
-- Flags: allow-oom
-- KEYS: 1 queue, 2 its dead letter queue, if one is named
-- ARGV: mode, then field, value ... as create
-- Returns: OK; nil in mode e: more has to be counted first, call again without any field
-- Errors: NOQUEUE ERR
-- Complexity: O(1), and O(log n) for each message that is counted, about 1000 at most
local function call(keys, args)
  local q = queue.need(keys[1])
  life.settle(q, life.BRIEFLY)
  queue.finish(q) -- before what may end the call
  local settings, bounds, names_target = limits.parse(q.name, q.limits or {}, args, 2)
  if names_target then -- only then: else he would lend his rights to a target that somebody else named
    letters.forward_first(q, false)
    limits.note_target(q.name, q.created_at, q.limits, bounds)
  end
  if settings.attempts and tonumber(settings.attempts) < queue.rules(q) then
    bounds.spent = '0'
    volatile.note(q.name, q.now)
  end
  q.limits = bounds
  queue.save_limits(q)
  for field, value in pairs(settings) do
    server.call('HSET', q.key, field, value)
  end
  q.attempts = false -- queue.rules is to read them again
  local more = false
  if q.limits.max_bytes then
    if args[2] then
      compact.restart(q) -- to count all
    end
    volatile.note(q.name, q.now) -- the sweeper counts too, and alone for who does not call again
    more = compact.step(q)
  end
  if q.limits.dlq then
    volatile.note(q.name, q.now) -- dead letters may have waited for this
  end
  life.find_due(q)
  queue.finish(q)
  if more and reply.is_stepped(args[1]) then
    return nil
  end
  return reply.in_mode(reply.OK, args[1])
end
