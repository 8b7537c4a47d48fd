-- cancel: removes a waiting message; one in flight is not delivered again, and its worker is told by EXTEND.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, id or receipt
-- Returns: 1, or 0 if no such message waits or is in flight (a dead letter stays what it is)
-- Errors: NOQUEUE STALE
-- Complexity: O(log n)
local function call(keys, args)
  local q = queue.need(keys[1])
  life.settle(q, life.BRIEFLY)
  local id, state, meta, code, problem = receipt.find(q, args[2])
  if code == 'STALE' then
    queue.finish(q)
    return reply.error(code, problem)
  end
  local cancelled = 1
  if state == 'inflight' then
    meta = meta or record.of_inflight(q, id)
  end
  if state == 'inflight' and not meta then
    cancelled = 0 -- nothing is left of it
  elseif state == 'inflight' then
    meta.c = 1 -- counted when its delivery ends, unless it is acknowledged
    record.free_dedup(q, id, meta)
    record.save(q, id, meta)
  elseif state and state ~= 'dlq' then
    record.remove(q, id, state, meta)
    volatile.compacts[q.name] = true
    queue.count(q, 'cancelled', 1)
  else
    cancelled = 0
  end
  queue.finish(q)
  return reply.in_mode(cancelled, args[1])
end
