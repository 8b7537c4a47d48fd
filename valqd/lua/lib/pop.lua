-- pop: taking what is ready, and how a delivery looks.
-- requires: number, waiters, queue, log, record, life

local pop = {}

local RECORD_BATCH = 256
-- Messages that one POP finds not to be delivered any more, before it leaves the others to the next.
local MOST_FAILED = 2000
local MOST_DEAD = 500 -- where they are moved to another queue
local NONE = {}
local MOST_AT_ONCE = 10000 -- as the daemon lets no more be asked for, who calls functions himself gets no more

-- What a POP asks for.  count: '' for one message, and no array; vt: ms or ''; flags: N for NOACK, M for WITHMETA; post: of
-- clients that have waited in line (see waiters), else nil.  In it, room is what the messages may weigh (see record.weight).
function pop.options(count, vt, flags, post)
  return {
    many = count ~= '',
    want = math.max(0, math.min(math.floor(tonumber(count) or 1), MOST_AT_ONCE)),
    room = count ~= '' and record.MOST_BYTES or math.huge,
    vt = tonumber(vt),
    noack = flags:find('N', 1, true) ~= nil,
    with_meta = flags:find('M', 1, true) ~= nil,
    post = post,
  }
end

-- Ready plain messages from the head on, in order and at most `want`, with ids below `below`; appends to taken and, with
-- their deadline, to `leases` (arguments for ZADD; nil with NOACK).
local function take_plain(q, want, below, taken, leases, deadline)
  local ids, bodies, ages = taken.ids, taken.bodies, taken.ages
  local id_text = number.id
  local slots = queue.SLOTS
  local n = #ids
  local id = q.head
  local goal = math.min(n + want, n + q.plain)
  local before = n
  local l = leases and #leases
  below = math.min(below, q.seq + 1)
  while n < goal and id < below do
    local bucket = math.floor((id - 1) / slots)
    local slot = id - 1 - bucket * slots
    local last = math.min(slots, slot + goal - n, slot + below - id)
    local found = server.call('LRANGE', log.key(q, bucket), slot * 2, last * 2 - 1)
    if not found[1] then
      id = log.skip_gap(q, bucket)
    end
    local first = n
    for i = 1, #found, 2 do
      local age = found[i]
      if age ~= '' then
        n = n + 1
        local text = id_text(id)
        ids[n] = text
        bodies[n] = found[i + 1]
        ages[n] = age
        if l then
          leases[l + 1] = deadline
          leases[l + 2] = text
          l = l + 2
        end
      end
      id = id + 1
    end
    if not l and n > first then
      log.forget(q, bucket, n - first)
    end
  end
  q.plain = id > q.seq and 0 or q.plain - (n - before)
  q.head = id
  q.changed = true
end

-- Ids and scores of the first ready records, at most RECORD_BATCH of them.
local function first_records(q, want)
  if q.may_have_ready == 0 then
    return NONE
  end
  local found = server.call('ZRANGE', q.prefix .. 'ready', 0, math.min(want, RECORD_BATCH) - 1, 'WITHSCORES')
  if not found[1] then
    q.may_have_ready = 0
    q.changed = true
  end
  return found
end

-- Deliver a record with these fields: whether it was delivered, or its TTL is over or its attempts are used up.
local function take_record(q, id, meta, options)
  if not meta then
    record.lose(q, 'ready', {number.text(id)})
    return false
  end
  if meta.x and meta.x <= q.now then
    life.expire(q, id, meta)
    return false
  end
  if life.is_spent(q, meta) then -- the queue's number was lowered since
    record.leave(q, id, meta)
    life.die(q, id, meta, 'attempts used up')
    return false
  end
  meta.a = meta.a + 1
  meta.n = meta.n + 1
  if meta.n > 1 then
    queue.count(q, 'redelivered', 1)
  end
  if not options.noack then
    meta.l = q.now + (options.vt or meta.v or q.vt)
    meta.g = q.now
    queue.note_due(q, meta.l)
  end
  return true
end

-- Drop the records whose bodies are lost (evicted, or deleted by hand), also from `taken`; the others' ids and fields.
local function without_lost(q, taken, ids, metas, bodies)
  local kept, fields, lost, lost_fields = {}, {}, {}, {}
  for i, id in ipairs(ids) do
    local list, of = bodies[i] and kept or lost, bodies[i] and fields or lost_fields
    list[#list + 1] = id
    of[#list] = metas[i]
  end
  record.drop_all(q, lost, lost_fields)
  local n, total = 0, #taken.ids
  for i = 1, total do
    local stays = taken.bodies[i] ~= false
    n = stays and n + 1 or n
    for _, list in pairs(taken) do
      local value = list[i]
      list[i] = nil
      if stays then
        list[n] = value
      end
    end
  end
  return kept, fields
end

-- Records that were delivered, at these places of `taken`, get their bodies there; they are in flight, or gone with NOACK.
local function move_records(q, taken, places, noack)
  local ids, metas = {}, {}
  for i, place in ipairs(places) do
    ids[i], metas[i] = taken.ids[place], taken.metas[place]
  end
  local bodies = server.call('HMGET', q.prefix .. 'body', unpack(ids))
  local lost = false
  for i, place in ipairs(places) do
    taken.bodies[place] = bodies[i]
    lost = lost or not bodies[i]
  end
  if lost then
    ids, metas = without_lost(q, taken, ids, metas, bodies)
  end
  if noack then
    record.drop_all(q, ids, metas)
    return
  end
  queue.write(q, 'ZREM', 'ready', ids)
  local leases, packed = {}, {}
  for i, id in ipairs(ids) do
    local meta = metas[i]
    meta.s = 'i'
    leases[2 * i - 1], leases[2 * i] = number.arg(meta.l), id
    packed[2 * i - 1], packed[2 * i] = id, cmsgpack.pack(meta)
  end
  queue.write(q, 'ZADD', 'inflight', leases)
  queue.write(q, 'HSET', 'meta', packed)
end

-- Ready messages, records and plain ones, in order and at most `want`; appends to taken and leases as take_plain does.
-- records: the first of the ready ones, as the caller has read them.  Returns what the records weigh that it took.
local function take_mixed(q, want, options, records, taken, leases, deadline)
  local ids = taken.ids
  local failed, weight = 0, 0
  local most_failed = q.limits and q.limits.dlq and MOST_DEAD or MOST_FAILED
  local batch = math.min(want, RECORD_BATCH)
  while true do
    local all = #records < 2 * batch
    local record_ids, scores = {}, {}
    for i = 1, #records, 2 do
      record_ids[#record_ids + 1] = records[i]
      scores[#record_ids] = tonumber(records[i + 1])
    end
    local metas = record.load_all(q, record_ids)
    local at = 1
    local places = {} -- of the records among what is taken
    life.together(q, function()
      -- After the last record of a full batch the next batch is read first: it may come before the plain messages.
      while #ids < want and weight < options.room and (all or record_ids[at]) do
        local score = scores[at]
        if q.plain > 0 and (not score or q.head < score) then
          take_plain(q, want - #ids, score or queue.FOREVER, taken, leases, deadline)
        elseif score then
          local id, meta = record_ids[at], metas[at]
          if take_record(q, tonumber(id), meta, options) then
            local place = #ids + 1
            ids[place] = id
            taken.metas[place] = meta
            places[#places + 1] = place
            weight = weight + record.weight(record.size(q, id, meta), meta.h or NONE)
          else
            failed = failed + 1
          end
          at = at + 1
        else
          break
        end
      end
    end)
    if places[1] then
      move_records(q, taken, places, options.noack)
    end
    if failed >= most_failed then
      queue.note_due(q, q.now) -- who waits is to ask again
      return weight
    end
    if weight >= options.room and not ids[1] then
      weight = 0 -- the bodies of all were lost: there may be others
    elseif #ids == want or all or weight >= options.room then
      return weight
    end
    batch = failed > 0 and RECORD_BATCH or math.min(want - #ids, RECORD_BATCH) -- more may have failed, one after another
    records = first_records(q, batch)
  end
end

-- Take up to `want` messages, whosever turn it is.
local function take(q, want, options)
  local taken, weight = {ids = {}, bodies = {}, ages = {}, metas = {}}, 0
  if want <= 0 or queue.paused(q, 'out') then
    return taken, weight
  end
  local ids = taken.ids
  local deadline_ms = q.now + (options.vt or q.vt)
  local deadline = number.arg(deadline_ms)
  local leases = not options.noack and {}
  local records = first_records(q, want)
  if records[1] then
    weight = take_mixed(q, want, options, records, taken, leases, deadline)
  elseif q.plain > 0 then
    take_plain(q, want, queue.FOREVER, taken, leases, deadline)
  end
  if leases and leases[1] then
    queue.write(q, 'ZADD', 'inflight', leases)
    queue.note_due(q, deadline_ms)
    if q.limits and q.limits.max_lease then -- the time of delivery has to be known
      queue.gather(q)
      record.of_all_inflight(q, ids, taken.metas)
      for i in pairs(taken.ages) do
        local meta = taken.metas[i]
        meta.l, meta.g = deadline_ms, q.now
        record.save(q, ids[i], meta)
      end
      queue.flush(q)
    end
  end
  return taken, weight
end

-- Take up to `want` messages; for clients that have waited, as many as are their turn.  Returns arrays: ids (as text), bodies,
-- and by the same index ages (of what was plain) and metas (of what is a record now); and what the records weigh.  The caller
-- settles first and saves the cursors after.
function pop.take(q, want, options)
  if not options.post then
    return take(q, want, options)
  end
  local turn = waiters.turn(q.name, options.post, queue.available(q), q.now)
  local taken, weight = take(q, math.min(want, turn), options)
  waiters.served(q.name, options.post, math.ceil(#taken.ids / math.max(1, options.want)))
  q.wakes = true -- what is left may be for others
  return taken, weight
end

-- After taking `count` messages.
function pop.finish(q, count)
  if count > 0 then
    q.delivered = q.delivered + count
    q.changed = true
  end
  queue.finish(q)
end

-- The i-th of what was taken, as a value.  queue_name: MPOP's `queue`, or nil.
function pop.delivery(q, taken, i, options, queue_name)
  local id, meta = taken.ids[i], taken.metas[i]
  local noack = options.noack
  local items = {}
  local function put(name, value)
    items[#items + 1] = name
    items[#items + 1] = value
  end
  if queue_name then
    put('queue', queue_name)
  end
  put('id', id)
  put('body', taken.bodies[i])
  put('attempts', meta and meta.a or 1)
  put('receipt', not noack and id .. '-' .. number.text(meta and meta.n or 1))
  if options.with_meta then
    local enqueued_at = meta and meta.t or log.enqueued_at(q, taken.ages[i])
    put('enqueued_at', enqueued_at)
    put('deadline', not noack and (meta and meta.l or q.now + (options.vt or q.vt)))
    put('priority', meta and meta.p or 0)
    put('headers', {map = meta and meta.h or {}})
    put('age_ms', math.max(0, q.now - enqueued_at))
    put('last_error', meta and meta.e or false)
  elseif meta and meta.h then
    put('headers', {map = meta.h})
  end
  return {map = items}
end
