-- walk: SCAN over all messages of a queue.
-- requires: number, queue, log, record
--
-- First the plain messages, by id (cursor 2*id: go on from id), then the records (cursor 2*c+1, c being HSCAN's): a plain
-- message that becomes a record meanwhile is seen once more, never missed.

local walk = {}

-- One step from `cursor`: next cursor (0: done), ids.
function walk.step(q, cursor, count)
  local ids = {}
  if cursor % 2 == 1 then
    local found = server.call('HSCAN', q.prefix .. 'meta', number.text((cursor - 1) / 2), 'COUNT', count)
    for i = 1, #found[2], 2 do
      ids[#ids + 1] = tonumber(found[2][i])
    end
    return found[1] == '0' and 0 or tonumber(found[1]) * 2 + 1, ids
  end
  local id = math.max(1, cursor / 2)
  local buckets = 0
  while id <= q.seq and #ids < count and buckets < 1000 do
    local bucket = log.bucket(id)
    local last = math.min(q.seq, (bucket + 1) * SLOTS)
    if server.call('HEXISTS', q.prefix .. 'gone', bucket) == 1 then
      local wanted = {}
      for candidate = id, math.min(last, id + count - #ids - 1) do
        wanted[#wanted + 1] = candidate
      end
      local metas = server.call('HMGET', q.prefix .. 'meta', unpack(wanted))
      for i, candidate in ipairs(wanted) do
        if not metas[i] then
          ids[#ids + 1] = candidate
        end
      end
      id = wanted[#wanted] + 1
    else
      id = last + 1
    end
    buckets = buckets + 1
  end
  if id > q.seq then
    return 1, ids
  end
  return id * 2, ids
end

-- Glob as Valkey's SCAN: * ? [set] and backslash.
local function glob(pattern, text)
  local parts = {'^'}
  local i = 1
  while i <= #pattern do
    local char = pattern:sub(i, i)
    if char == '*' then
      parts[#parts + 1] = '.*'
    elseif char == '?' then
      parts[#parts + 1] = '.'
    elseif char == '[' then
      local close = pattern:find(']', i + 2, true)
      if not close then
        parts[#parts + 1] = '%['
      else
        local set = pattern:sub(i + 1, close - 1):gsub('%%', '%%%%')
        parts[#parts + 1] = '[' .. set .. ']'
        i = close
      end
    else
      if char == '\\' and i < #pattern then
        i = i + 1
        char = pattern:sub(i, i)
      end
      parts[#parts + 1] = char:gsub('%W', '%%%0')
    end
    i = i + 1
  end
  parts[#parts + 1] = '$'
  return text:find(table.concat(parts)) ~= nil
end

-- Whether a message (a value of view) is in the state, has the header and a body that matches.
function walk.matches(message, state, field, value, pattern)
  local fields = {}
  for i = 1, #message.map, 2 do
    fields[message.map[i]] = message.map[i + 1]
  end
  if state ~= '' and fields.state ~= state then
    return false
  end
  if field then
    local headers = fields.headers.map
    local found = false
    for i = 1, #headers, 2 do
      found = found or (headers[i] == field and headers[i + 1] == value)
    end
    if not found then
      return false
    end
  end
  return pattern == '' or glob(pattern, fields.body)
end
