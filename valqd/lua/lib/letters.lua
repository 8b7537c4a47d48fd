-- letters: where the dead go: into their queue's own index, or into its dead letter queue; and back.
-- requires: number, volatile, queue, record, limits

local letters = {}

-- How many a step moves to another queue, each of some 20 us, and as if it were one more for MOVE_BYTES of its body.
local MOST_MOVED = 500
local MOVE_BYTES = 65536
-- The same for a call that names those that die: more than one can name, so that only very large bodies wait for the next.
local MOST_NAMED = 2048
-- How many steps of moving one call makes that is not made again.
local MOST_STEPS = 8
-- How many bytes of bodies are gathered at a time.
local MOST_HELD_BYTES = 1048576
-- Of more that began to wait in the same ms, not the oldest may be moved first.
local MOST_TIES = 2000

-- A function that tells of one message after another whether a step may still move it.
function letters.fits_one_step(q, most)
  local moved = 0
  most = most or MOST_MOVED
  return function(id)
    local fits = moved < most
    moved = moved + 1 + server.call('HSTRLEN', q.prefix .. 'body', id) / MOVE_BYTES
    return fits
  end
end

-- The first of these ids, as many as a step may move to another queue.
function letters.first_step(q, ids)
  local fits = letters.fits_one_step(q)
  local some = {}
  for i, id in ipairs(ids) do
    if not fits(id) then
      break
    end
    some[i] = id
  end
  return some
end

-- The queue that takes this one's dead, made if it is missing; nil if the caller may not write there, or it is in another
-- slot of a cluster.  Nothing is written before that is known.  That the caller may write there is not enough: it may be a
-- daemon, or anybody whose call finds a lease over, with rights on all keys.  Somebody who could write to the target must have
-- made it this queue's: then the target's key `sources` says so (see limits.note_target).
local function open_elsewhere(q)
  local sources = limits.sources_key(q.limits.dlq)
  if server.pcall('HGET', sources, q.name) ~= number.text(q.created_at) then
    return nil
  end
  local key = 'valq:{' .. q.limits.dlq .. '}:queue'
  local opened, target = pcall(queue.need_or_create, key, '30000:5:86400000')
  if not opened then
    return nil
  end
  local written = server.pcall('HINCRBY', key, 'bytes', 0)
  return type(written) == 'number' and target
end

-- The headers of a dead letter in its dead letter queue: valq-queue, valq-id, valq-attempts and valq-reason say where it
-- comes from and why, in place of what said so where it died before.
local function letter_headers(q, id, meta)
  local headers = {'valq-queue', q.name, 'valq-id', number.text(id), 'valq-attempts', number.text(meta.a),
    'valq-reason', meta.w}
  local ours = {}
  for h = 1, #headers, 2 do
    ours[headers[h]] = true
  end
  local theirs = meta.h or {}
  for h = 1, #theirs, 2 do
    if not ours[theirs[h]] then
      headers[#headers + 1] = theirs[h]
      headers[#headers + 1] = theirs[h + 1]
    end
  end
  return headers
end

local function is_finite(value)
  return type(value) == 'number' and value - value == 0
end

-- Whether a record is as the functions write them.  Who may write the keys of its queue may write anything there, and that is
-- not to get into another queue.
function letters.is_sound(body, meta)
  if type(body) ~= 'string' or type(meta) ~= 'table' or not record.INDEX[meta.s] then
    return false
  end
  for _, field in ipairs({'t', 'n', 'a', 'p', 'v', 'm', 'f', 'D'}) do
    if meta[field] ~= nil and not is_finite(meta[field]) then
      return false
    end
  end
  for _, field in ipairs({'e', 'w', 'k'}) do
    if meta[field] ~= nil and type(meta[field]) ~= 'string' then
      return false
    end
  end
  local priority, headers = meta.p or 0, meta.h or {}
  if priority < 0 or priority > record.MAX_PRIORITY or priority % 1 ~= 0 or not meta.a then
    return false
  end
  local count = 0
  for at, item in pairs(type(headers) == 'table' and headers or {false}) do
    if type(item) ~= 'string' or not is_finite(at) then
      return false
    end
    count = count + 1
  end
  return count == #headers and count % 2 == 0
end

-- Write these dead messages of q to `target`; whether it took them: one of its keys may not be what it must be, or not be
-- the caller's to write.  Its ids are used up then all the same.
local function write(q, target, ids, metas, bodies)
  local first, bytes = target.seq + 1, target.counts.bytes
  queue.gather(target)
  local done = pcall(function()
    for n, meta in ipairs(metas) do
      local copy = {t = target.now, n = 0, a = 0, p = meta.p, h = letter_headers(q, tonumber(ids[n]), meta), e = meta.e,
        f = meta.f, D = meta.D}
      record.enter(target, record.add(target, bodies[n], copy), copy, 'r')
    end
    record.flush(target)
  end)
  target.gathered, target.slotless = false, 0
  if not done then
    target.counts.bytes = bytes
    for id = first, target.seq do
      server.pcall('HDEL', target.prefix .. 'body', id)
      server.pcall('HDEL', target.prefix .. 'meta', id)
      server.pcall('ZREM', target.prefix .. 'ready', id)
    end
  end
  return pcall(queue.finish, target) and done
end

-- Of dead messages ({id, fields} each) move those that are sound to `target`, at most MOST_HELD_BYTES of bodies at once.
-- What is moved is removed first: if that fails, nothing is there twice.  Returns those that are not sound; those that the
-- target did not take, which are in no index, but have their bodies; and those behind them, which were not touched.
local function move(q, target, dead)
  local unsound, failed, rest = {}, {}, {}
  local ids, metas, bodies = {}, {}, {}
  local held = 0
  for i, message in ipairs(dead) do
    local id, meta = message[1], message[2]
    local body = not failed[1] and server.pcall('HGET', q.prefix .. 'body', id)
    if failed[1] then
      rest[#rest + 1] = message
    elseif letters.is_sound(body, meta) then
      local n = #ids + 1
      ids[n], metas[n], bodies[n] = number.text(id), meta, body
      held = held + #body
    else
      unsound[#unsound + 1] = message
    end
    if ids[1] and (held > MOST_HELD_BYTES or i == #dead) then
      record.drop_all(q, ids, metas)
      if not write(q, target, ids, metas, bodies) then
        for n, text in ipairs(ids) do
          server.call('HSET', q.prefix .. 'body', text, bodies[n])
          failed[n] = {tonumber(text), metas[n]}
        end
      end
      ids, metas, bodies = {}, {}, {}
      held = 0
    end
  end
  return unsound, failed, rest
end

-- Put the dead ({id, fields} each, in no index) where they are to be: in their dead letter queue, whatever limits that has and
-- even when it is paused (the dead are not lost), or else in their own.  There those wait that others may move, or that are
-- too much for one call: the sweeper moves them, with the daemon's own rights.
function letters.bury(q, dead)
  local stay, wait = dead, {}
  if q.limits and q.limits.dlq then
    local target = open_elsewhere(q)
    local fits = letters.fits_one_step(q, MOST_NAMED)
    local now = {}
    for _, message in ipairs(dead) do
      table.insert(target and fits(message[1]) and now or wait, message)
    end
    local failed, rest
    stay, failed, rest = move(q, target, now)
    for _, others in ipairs({failed, rest}) do
      for _, message in ipairs(others) do
        wait[#wait + 1] = message
      end
    end
  end
  for _, message in ipairs(stay) do
    message[2].w = nil
    record.enter(q, message[1], message[2], 'q', q.now)
  end
  for _, message in ipairs(wait) do
    server.call('ZADD', q.prefix .. 'forward', number.text(q.now), message[1])
    volatile.note(q.name, q.now)
    record.enter(q, message[1], message[2], 'q', q.now)
  end
  local _, retention = queue.rules(q)
  if retention > 0 then
    queue.note_due(q, q.now + retention)
  end
end

-- Move dead letters, as many as a step may, that wait in this queue for somebody with rights on its dead letter queue.  True
-- if there are more.
function letters.forward(q)
  if not (q.limits and q.limits.dlq) then
    return false
  end
  local found = server.call('ZRANGE', q.prefix .. 'forward', 0, MOST_TIES - 1, 'WITHSCORES')
  local target = found[1] and open_elsewhere(q)
  if not target then
    return false
  end
  local waiting, texts = {}, {}
  for i = 1, #found, 2 do
    waiting[#waiting + 1] = {found[i], tonumber(found[i + 1]), tonumber(found[i]) or 0}
  end
  table.sort(waiting, function(a, b)
    return a[2] < b[2] or a[2] == b[2] and a[3] < b[3]
  end)
  for i, message in ipairs(waiting) do
    texts[i] = message[1]
  end
  local dead = {}
  for i, text in ipairs(letters.first_step(q, texts)) do
    dead[i] = {tonumber(text) or text, record.load(q, text)}
  end
  local unsound, failed = move(q, target, dead)
  for _, message in ipairs(failed) do
    letters.put_back(q, message[1], message[2])
    unsound[#unsound + 1] = message
  end
  for _, message in ipairs(unsound) do
    server.call('ZREM', q.prefix .. 'forward', message[1])
  end
  return #dead < #texts or #texts == MOST_TIES
end

-- Before a command that would remove them, take them for its own, or send the next ones elsewhere: move those that wait.
-- True in a stepped call if there are more: it is to be made again.  In another a bounded number is moved, for so many may be
-- made up in the queue's own keys.
function letters.forward_first(q, is_stepped)
  for _ = 1, is_stepped and 1 or MOST_STEPS do
    if not letters.forward(q) then
      return false
    end
  end
  return is_stepped
end

-- A dead letter that is in no index, but has its body, is where it was.
function letters.put_back(q, id, meta)
  meta.w = nil
  record.enter(q, id, meta, 'q', meta.D)
end

-- A dead letter gets another life.
function letters.redrive(q, id, meta)
  record.leave(q, id, meta)
  queue.count(q, 'bytes', server.call('HSTRLEN', q.prefix .. 'body', id))
  if meta.w then
    server.call('ZREM', q.prefix .. 'forward', id)
    meta.w = nil
  end
  meta.a = 0
  record.enter(q, id, meta, 'r')
end
