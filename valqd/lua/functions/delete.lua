-- delete: removes a queue with all its messages.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode
-- Returns: OK; mode e: nil when it is to be called again
-- Errors: NOQUEUE
-- Complexity: O(b) for b buckets of 128 messages; mode e: of a large queue, the first calls only purge, in bounded steps
local MOST_BUCKETS = 2000

local function call(keys, args)
  local q = queue.open(keys[1])
  if not q then
    queue.wipe(keys[1]) -- what is left of one whose hash was evicted
    return queue.missing(keys[1])
  end
  if letters.forward_first(q, reply.is_stepped(args[1])) then
    queue.finish(q)
    return nil
  end
  if reply.is_stepped(args[1]) and server.call('HLEN', q.prefix .. 'gone') > MOST_BUCKETS
    and purge.step(q, purge.INDEXES.all, purge.begin(q)) > 0 then
    queue.finish(q)
    return nil
  end
  limits.note_target(q.name, q.created_at, q.limits, nil)
  queue.wipe(q.key)
  compact.restart(q)
  volatile.note(q.name, q.now) -- its timer goes with the next sweep; a queue of that name in another database sets its own
  waiters.wake_all(q.name, q.now)
  return reply.in_mode(reply.OK, args[1])
end
