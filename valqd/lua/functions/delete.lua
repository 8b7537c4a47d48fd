-- delete: removes a queue with all its messages.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode
-- Returns: OK; mode e: nil when it is to be called again
-- Errors: NOQUEUE
-- Complexity: O(b) for b buckets of 128 messages; mode e: of a large queue, the first calls only purge, in bounded steps
local MOST_BUCKETS = 2000

local function call(keys, args)
  local q = queue.need(keys[1])
  if reply.is_stepped(args[1]) and server.call('HLEN', q.prefix .. 'gone') > MOST_BUCKETS
    and purge.step(q, purge.INDEXES.all, purge.begin(q)) > 0 then
    queue.finish(q)
    return nil
  end
  local buckets = server.call('HKEYS', q.prefix .. 'gone')
  for from = 1, #buckets, 1000 do
    local names = {}
    for i = from, math.min(#buckets, from + 999) do
      names[#names + 1] = log.key(q, buckets[i])
    end
    server.call('UNLINK', unpack(names))
  end
  limits.note_target(q.name, q.created_at, q.limits, nil)
  local p = q.prefix
  server.call('UNLINK', q.key, p .. 'gone', p .. 'inflight', p .. 'ready', p .. 'delayed', p .. 'dlq', p .. 'body',
    p .. 'meta', p .. 'expiry', p .. 'dedup', p .. 'windows', p .. 'forward') -- 'sources' stays: what they die to is made again
  compact.restart(q)
  volatile.note(q.name, q.now) -- its timer goes with the next sweep; a queue of that name in another database sets its own
  waiters.wake_all(q.name, q.now)
  return reply.in_mode({ok = 'OK'}, args[1])
end
