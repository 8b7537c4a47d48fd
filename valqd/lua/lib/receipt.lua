-- receipt: ids and receipts as clients send them, and ending deliveries by them.
-- requires: number, volatile, queue, log, record, life

local receipt = {}

-- Of the reasons that one call gives back messages for: each has it for itself.
local MAX_REASON_BYTES = 67108864

-- "<id>" or "<id>-<n>": id as a number and n as a number or nil; 0, which no message has, if it is neither.
function receipt.parse(text)
  local id, n = text:match('^([1-9]%d*)%-?(%d*)$')
  return tonumber(id) or 0, tonumber(n)
end

-- Whether message `id`, of which record.find gave state and meta, is in flight, in its nth delivery if n is given, and the
-- lease is not over.
local function is_current(q, id, n, state, meta)
  if state ~= 'inflight' or (n and n ~= (meta and meta.n or 1)) then
    return false
  end
  return not q.behind or tonumber(server.call('ZSCORE', q.prefix .. 'inflight', id)) > q.now
end

-- The message that `text` names: its id, its state and, of a record, its fields.  If there is none, or a receipt's lease is
-- over, or it is not in flight though it must be: id, nil, nil, an error's code and text.
function receipt.find(q, text, must_be_inflight)
  local id, n = receipt.parse(text)
  local state, meta = record.find(q, id)
  if not state then
    return id, nil, nil, 'NOMSG', 'no message ' .. (text:match('%d+') or text) .. " in queue '" .. q.name .. "'"
  elseif (n or must_be_inflight) and not is_current(q, id, n, state, meta) then
    if n then
      return id, nil, nil, 'STALE', 'the lease of receipt ' .. text .. ' is over'
    end
    return id, nil, nil, 'NOTINFLIGHT', 'message ' .. number.text(id) .. ' is not in flight'
  end
  return id, state, meta
end

local ACK_BATCH = 1000
-- Fewer receipts than this are looked up among the records without asking first whether any record is in flight.
local FEW = 4

-- What args[from] to args[to] name: ids and, by the same index, the receipts' n (both text; nil for an id alone).
-- Then whether all are receipts.
local function read(args, from, to)
  local byte, sub = string.byte, string.sub
  local ids, numbers = {}, {}
  local count = 0
  local only_receipts = true
  for i = from, to do
    local text = args[i]
    count = count + 1
    local dash, one = byte(text, -2, -1)
    if dash == 45 and one == 49 then -- "-1": a first delivery's receipt
      ids[count] = sub(text, 1, -3)
      numbers[count] = '1'
    else
      local at = text:find('-', 1, true)
      ids[count] = at and text:sub(1, at - 1) or text
      numbers[count] = at and text:sub(at + 1)
      only_receipts = only_receipts and at
    end
  end
  return ids, numbers, only_receipts
end

-- Whether some of these may name records: every record that is not in flight is in one of three other indexes.
local function may_name_records(q, count, only_receipts)
  if q.may_have_records == 0 then
    return false
  end
  local records = server.call('HLEN', q.prefix .. 'meta')
  if records == 0 then
    q.may_have_records = 0
    q.changed = true
  end
  if records == 0 or not only_receipts or count < FEW then
    return records > 0
  end
  return records > server.call('ZCARD', q.prefix .. 'ready') + server.call('ZCARD', q.prefix .. 'delayed')
    + server.call('ZCARD', q.prefix .. 'dlq')
end

-- When the leases of `ids` end; false for what is not in flight, and for a receipt whose lease is over and not settled yet.
local function leases(q, ids, numbers)
  local ends = server.call('ZMSCORE', q.prefix .. 'inflight', unpack(ids))
  if q.behind then
    for i = 1, #ids do
      ends[i] = ends[i] and (not numbers[i] or tonumber(ends[i]) > q.now) and ends[i]
    end
  end
  return ends
end

-- Whether a plain message of that id is ready.
local function is_ready(q, text)
  local id = receipt.parse(text)
  return id >= q.head and id <= q.seq and log.read(q, id)
end

-- Which of `ids` are acknowledged, once however often they are named: plain messages in flight, ready ones, records, the
-- records' fields; sets results[at + 1] ... to 1 or 0.  ends: as of leases.  metas: packed fields of records, or false.
local function choose(q, ids, numbers, ends, metas, results, at)
  local inflight, ready, records, fields = {}, {}, {}, {}
  local chosen = {}
  local n_inflight = 0
  for i = 1, #ids do
    local id, n = ids[i], numbers[i]
    local done = false
    if chosen[id] then -- named before
    elseif metas and metas[i] then
      local meta = cmsgpack.unpack(metas[i])
      if not n or (ends[i] and meta.s == 'i' and tonumber(n) == meta.n) then
        records[#records + 1] = id
        fields[#fields + 1] = meta
        done = true
      end
    elseif ends[i] then
      if not n or n == '1' then
        n_inflight = n_inflight + 1
        inflight[n_inflight] = id
        done = true
      end
    elseif not n and is_ready(q, id) then
      ready[#ready + 1] = id
      done = true
    end
    if done then
      chosen[id] = true
    end
    results[at + i] = done and 1 or 0
  end
  return inflight, ready, records, fields
end

-- Acknowledge args[from] to args[to], at most ACK_BATCH; sets results[at + 1] ... to 1 or 0; how many.
local function ack_batch(q, args, from, to, results, at)
  local ids, numbers, only_receipts = read(args, from, to)
  local metas = may_name_records(q, #ids, only_receipts) and server.call('HMGET', q.prefix .. 'meta', unpack(ids))
  -- The hot case, one plain message in flight: removing tells whether it is that.
  if not ids[2] and not metas and not q.behind and (numbers[1] or '1') == '1'
    and server.call('ZREM', q.prefix .. 'inflight', ids[1]) == 1 then
    log.forget(q, log.bucket(ids[1]), 1)
    results[at + 1] = 1
    return 1
  end
  local inflight, ready, records, fields = choose(q, ids, numbers, leases(q, ids, numbers), metas, results, at)
  if inflight[1] then
    server.call('ZREM', q.prefix .. 'inflight', unpack(inflight))
    log.forget_all(q, inflight)
  end
  for _, id in ipairs(ready) do
    log.clear(q, tonumber(id))
  end
  if records[1] then
    record.drop_all(q, records, fields)
  end
  return #inflight + #ready + #records
end

-- Acknowledge what args[from] ... name: how many, and 1 or 0 for each.
function receipt.ack(q, args, from)
  local results = {}
  local acked = 0
  for start = from, #args, ACK_BATCH do
    acked = acked + ack_batch(q, args, start, math.min(#args, start + ACK_BATCH - 1), results, start - from)
  end
  if acked > 0 then
    q.acked = q.acked + acked
    q.changed = true
    volatile.compacts[q.name] = true
  end
  return acked, results
end

-- Give back every delivery that args[from] ... name: how many, and 1 or 0 for each.
-- kind FAIL: the attempt is used; SILENT: it is given back; RETURN: the same, and nobody said NACK (a daemon could not hand
-- the message over); FATAL: to the dead letters.  delay_ms nil: the backoff's.
function receipt.nack(q, kind, delay_ms, reason, args, from)
  if (#args - from + 1) * #reason > MAX_REASON_BYTES then -- as the daemon asks for no more
    error('ERR too long a reason for so many messages', 0)
  end
  local is_unused = kind == 'SILENT' or kind == 'RETURN'
  local said = reason ~= '' and reason or nil
  local why = said or (is_unused and 'attempts used up' or 'nack') -- for a dead letter queue
  local results = {}
  local done = {}
  local count = 0
  local function give_back(id, meta)
    meta = meta or record.of_inflight(q, id)
    if not meta then
      return false
    end
    record.leave(q, id, meta)
    if said or not is_unused then
      meta.f, meta.e = q.now, said
    end
    local wait_ms = delay_ms or life.backoff_ms(q, id, meta.a)
    if is_unused then
      meta.a = meta.a - 1
    end
    if kind == 'FATAL' and not meta.c then
      life.die(q, id, meta, why)
    else
      life.give_back(q, id, meta, wait_ms, why, q.now)
    end
    return true
  end
  life.together(q, function()
    for i = from, #args do
      local id = receipt.parse(args[i])
      local state, meta
      if not done[id] then -- one that has died is in no index before the end
        id, state, meta = receipt.find(q, args[i], true)
      end
      local is_back = state and give_back(id, meta)
      if is_back then
        done[id] = true
        count = count + 1
      end
      results[#results + 1] = is_back and 1 or 0
    end
  end)
  queue.count(q, 'nacked', kind ~= 'RETURN' and count or 0)
  return count, results
end

-- Move the deadline of a delivery to now + ms, as far as max_lease lets it; the deadline, or nil, code, error text.
function receipt.extend(q, text, ms)
  local id, state, meta, code, problem = receipt.find(q, text, true)
  if not state then
    return nil, code, problem
  end
  if meta and meta.c then
    return nil, 'CANCELLED', 'message ' .. number.text(id) .. ' was cancelled'
  end
  local deadline = q.now + ms
  local max_lease = q.limits and q.limits.max_lease
  if max_lease then
    meta = meta or record.of_inflight(q, id) -- it was delivered before max_lease was set
    if not meta then
      return nil, 'NOMSG', 'no message ' .. number.text(id) .. " in queue '" .. q.name .. "'"
    end
    meta.g = meta.g or q.now
    local most = math.max(meta.g + max_lease, tonumber(server.call('ZSCORE', q.prefix .. 'inflight', id)))
    deadline = math.min(deadline, most) -- what the lease has already is not taken from it
  end
  server.call('ZADD', q.prefix .. 'inflight', number.text(deadline), id)
  if meta then
    meta.l = deadline
    record.save(q, id, meta)
  end
  queue.note_due(q, deadline)
  return deadline
end
