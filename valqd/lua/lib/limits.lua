-- limits: a queue's configuration as CREATE and UPDATE send it.
-- requires: number, reply

local limits = {}

-- More than all of them together take: who may write the queue's hash may write anything there, and each call reads it.
local MAX_BYTES = 4096

-- A queue's limits, from the field that holds them.
function limits.unpack(packed)
  if #packed > MAX_BYTES then
    error('ERR this is no queue', 0)
  end
  return cmsgpack.unpack(packed)
end

-- Would queue `name` be reached again by following dead letter queues from `target`, as far as the caller may look?  True
-- also when there are too many to say.
local function is_cycle(name, target)
  for _ = 1, 100 do
    if target == name then
      return true
    end
    local packed = server.pcall('HGET', 'valq:{' .. target .. '}:queue', 'limits')
    if type(packed) ~= 'string' or packed == '' then
      return false
    end
    target = limits.unpack(packed).dlq
    if not target then
      return false
    end
  end
  return true
end

-- The names of the queues whose dead go to queue `name`, and when these were created: the next of a name is another.
function limits.sources_key(name)
  return 'valq:{' .. name .. '}:sources'
end

-- Queue `name`, created at that time, had the limits `old` and gets `new`: the target of its dead remembers it, if the caller
-- may write there.
function limits.note_target(name, created_at, old, new)
  local before, after = old and old.dlq, new and new.dlq
  if before and before ~= after then
    server.pcall('HDEL', limits.sources_key(before), name)
  end
  if after then
    server.pcall('HSET', limits.sources_key(after), name, number.text(created_at))
  end
end

-- Read {field, value} pairs of args from index `at` for queue `name`, on top of the limits `old`.  Returns those of
-- vt, attempts and retention that are given (as strings), the new limits, and whether the dead letter queue is among what is
-- given.  On a bad value the call ends (see guard).
function limits.parse(name, old, args, at)
  local settings = {}
  local new = {}
  local names_target = false
  for field, value in pairs(old) do
    new[field] = value
  end
  local direct = {visibility_timeout = 'vt', max_delivery_attempts = 'attempts', retention_period = 'retention'}
  for i = at, #args, 2 do
    local field, value = args[i], args[i + 1]
    if direct[field] then
      if not value:find('^%d%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?$') then
        error(reply.error('ERR', field .. ' must be a whole number'))
      end
      settings[direct[field]] = value
    elseif field == 'backoff' then
      local kind, base, cap, jitter = value:match('^(%u+):(%d+):(%d+):(%d+)$')
      new.backoff = kind and {kind, tonumber(base), tonumber(cap), tonumber(jitter)} or nil
    elseif field == 'overflow' then
      new.overflow = value ~= '' and value or nil
    elseif field == 'dead_letter_queue' then
      if value ~= '' and is_cycle(name, value) then
        error(reply.error('ERR', "DLQ '" .. value .. "' leads back to queue '" .. name .. "', or over 100 queues or more"))
      end
      new.dlq = value ~= '' and value or nil
      names_target = true
    elseif field == 'max_length' or field == 'max_bytes' or field == 'max_lease' then
      new[field] = tonumber(value)
    else
      error(reply.error('ERR', "unknown field '" .. field .. "'"))
    end
  end
  return settings, new, names_target
end
