-- walk: SCAN over all messages of a queue.
-- requires: number, queue, log, glob
--
-- First the plain messages, by id (cursor 4*id: go on from id), then the records, by id where they are few (4*id+1), else
-- as HSCAN goes (4*c+2, c being its cursor): a plain message that becomes a record meanwhile is seen once more, never missed.

local walk = {}

local FEW_RECORDS = 512
local MOST_HASHED = 10

-- Whether a SCAN of this queue may have answered `cursor`, now or at any time before: ids only grow, and a hash has no more
-- than a few buckets for each field that it had once.
function walk.is_cursor(q, cursor)
  local phase, at = cursor % 4, math.floor(cursor / 4)
  if phase == 0 then
    return cursor == 0 or (at > 1 and at <= q.seq)
  elseif phase == 1 then
    return at ~= 1 and at <= q.seq and q.seq > 0
  end
  return phase == 2 and q.seq > FEW_RECORDS and at < 4 * q.seq
end

-- Plain messages with ids from `id` on, by id.
local function plain(q, id, count)
  local ids = {}
  for bucket in log.buckets(q, log.bucket(id), 1) do
    id = math.max(id, bucket * queue.SLOTS + 1)
    local last = math.min(q.seq, (bucket + 1) * queue.SLOTS)
    while id <= last and #ids < count do
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
    end
    if #ids == count then
      break
    end
  end
  if #ids == count and id <= q.seq then
    return id * 4, ids, 0
  end
  local records = server.call('HLEN', q.prefix .. 'meta')
  return records == 0 and 0 or records > FEW_RECORDS and 2 or 1, ids, 0
end

-- Records with ids from `at` on, by id: HSCAN would return all of a small hash at once, bodies of any size with them.
local function few_records(q, at, count)
  local ids = {}
  for _, text in ipairs(server.call('HKEYS', q.prefix .. 'meta')) do
    local id = tonumber(text)
    if id >= at then
      ids[#ids + 1] = id
    end
  end
  table.sort(ids)
  if #ids <= count then
    return 0, ids, 1
  end
  return ids[count + 1] * 4 + 1, {unpack(ids, 1, count)}, 1
end

-- Some records as HSCAN gives them, from its cursor `at` on: few, as one cannot go on from the middle of them.
local function many_records(q, at, count)
  local found = server.call('HSCAN', q.prefix .. 'meta', number.text(at), 'COUNT', math.min(count, MOST_HASHED))
  local ids = {}
  for i = 1, #found[2], 2 do
    ids[#ids + 1] = tonumber(found[2][i])
  end
  return found[1] == '0' and 0 or tonumber(found[1]) * 4 + 2, ids
end

-- One step from `cursor`: next cursor (0: done), ids (`count` or fewer: see many_records); and if it goes by id, its phase: to
-- go on from one of them, 4*id+phase.
function walk.step(q, cursor, count)
  local phase, at = cursor % 4, math.floor(cursor / 4)
  if phase == 0 then
    return plain(q, math.max(1, at), count)
  elseif phase == 2 then
    return many_records(q, at, count)
  elseif server.call('HLEN', q.prefix .. 'meta') > FEW_RECORDS then -- they have become many
    return many_records(q, 0, count)
  end
  return few_records(q, at, count)
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
  return pattern == '' or (fields.body and glob.matches(pattern, fields.body) or false) -- it may be lost
end
