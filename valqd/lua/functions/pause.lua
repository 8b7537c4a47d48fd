-- pause: holds pushes or pops back, for a time or until it is lifted.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, what (IN, OUT, ALL, NONE), for ms or ''
-- Returns: OK
-- Errors: NOQUEUE
-- Complexity: O(1)
local function call(keys, args)
  local q = queue.need(keys[1])
  life.settle(q, life.BRIEFLY)
  q.limits = q.limits or {}
  local until_ms = math.min(queue.FOREVER, q.now + (tonumber(args[3]) or queue.FOREVER))
  local what = args[2]
  q.limits.pause_in = (what == 'IN' or what == 'ALL') and until_ms or nil
  q.limits.pause_out = (what == 'OUT' or what == 'ALL') and until_ms or nil
  queue.save_limits(q)
  if what ~= 'NONE' then
    queue.note_due(q, until_ms)
  end
  q.wakes = true
  queue.finish(q)
  return reply.in_mode(reply.OK, args[1])
end
