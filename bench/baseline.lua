#!lua name=bench
-- What a team would write for itself on Valkey, one call a command: the thing that valqd is compared with.
-- KEYS of each function: 1 counters (HASH)  2 ready (ZSET)  3 in flight (ZSET)  4 bodies (HASH)
local LEASE_MS = 30000

server.register_function('bench_push', function(keys, args)
  local id = server.call('HINCRBY', keys[1], 'last', 1)
  server.call('HSET', keys[4], id, args[1])
  server.call('ZADD', keys[2], id, id)
  return tostring(id)
end)

server.register_function('bench_pop', function(keys)
  local first = server.call('ZPOPMIN', keys[2])
  if not first[1] then
    return false
  end
  local time = server.call('TIME')
  server.call('ZADD', keys[3], time[1] * 1000 + LEASE_MS, first[1])
  server.call('HINCRBY', keys[1], 'delivered', 1)
  return {first[1], server.call('HGET', keys[4], first[1])}
end)

server.register_function('bench_ack', function(keys, args)
  local removed = server.call('ZREM', keys[3], args[1])
  if removed == 1 then
    server.call('HDEL', keys[4], args[1])
  end
  return removed
end)
