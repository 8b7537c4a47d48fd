-- create: makes a queue.
-- Flags: deny-oom
-- KEYS: 1 queue, 2 its dead letter queue, if one is named
-- ARGV: mode, nx ('1' or ''), then field, value ...: visibility_timeout, max_delivery_attempts, retention_period (ms)
--       and those of limits (see lib/limits)
-- Returns: OK
-- Errors: QUEUEEXISTS ERR
-- Complexity: O(1)
local function call(keys, args)
  local name = queue.name_of(keys[1])
  if server.call('HEXISTS', keys[1], 'created_at') == 1 then
    if args[2] == '1' then
      return reply.in_mode(reply.OK, args[1])
    end
    return reply.error('QUEUEEXISTS', "queue '" .. name .. "' is already there")
  end
  local settings, bounds = limits.parse(name, {}, args, 3)
  local created_at = queue.create(keys[1], settings.vt, settings.attempts, settings.retention, bounds)
  limits.note_target(name, created_at, nil, bounds)
  return reply.in_mode(reply.OK, args[1])
end
