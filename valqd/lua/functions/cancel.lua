-- cancel: removes a waiting message; one in flight is not delivered again, and its worker is told by EXTEND.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: mode, id
-- Returns: OK
-- Errors: NOQUEUE NOMSG
-- Complexity: O(log n)
local function call(keys, args)
  local q = queue.open(keys[1])
  if not q then
    return queue.missing(keys[1])
  end
  life.settle(q, 200)
  local id = receipt.parse(args[2])
  local where, meta = record.find(q, id)
  if not where then
    life.finish(q)
    return reply.error('NOMSG', 'no message ' .. args[2] .. " in queue '" .. q.name .. "'")
  end
  local counted = 1
  if where == 'inflight' or (where == 'record' and meta.s == 'i') then
    meta = meta or record.of_inflight(q, id)
    counted = meta.c and 0 or 1
    meta.c = 1
    record.free_dedup(q, id, meta)
    record.save(q, id, meta)
  else
    record.remove(q, id)
  end
  queue.count(q, 'cancelled', counted)
  life.finish(q)
  return reply.finish({ok = 'OK'}, args[1])
end
