-- letters: where the dead go: into their queue's own index, or into its dead letter queue; and back.
-- requires: number, volatile, queue, record, limits

local letters = {}

-- How many one step of the sweeper moves, and how many bytes of bodies are gathered at a time.
local MAX_FORWARDED = 100
local MOST_HELD_BYTES = 1048576

-- The queue that takes this one's dead, made if it is missing; nil if the caller may not write there, or it is in another
-- slot of a cluster.  Nothing is written before that is known.  A daemon may write everywhere: what it does for a queue
-- needs the word of somebody who might have done it, in the target's own keys.
local function open_elsewhere(q)
  local sources = limits.sources_key(q.limits.dlq)
  local created_at = number.text(q.created_at)
  local allowed
  if q.by_daemon then
    allowed = server.pcall('HGET', sources, q.name) == created_at
  else
    allowed = type(server.pcall('HSET', sources, q.name, created_at)) == 'number'
  end
  if not allowed then
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

-- Move dead messages ({id, fields} each) to their queue's dead letter queue, whatever limits that has and even when it is
-- paused: the dead are not lost.  False if that cannot be, and nothing was changed.
local function move_elsewhere(q, dead)
  local target = open_elsewhere(q)
  if not target then
    return false
  end
  local ids, metas = {}, {}
  local held = 0
  queue.gather(target)
  for i, message in ipairs(dead) do
    local id, meta = message[1], message[2]
    local body = server.call('HGET', q.prefix .. 'body', id)
    local copy = {t = target.now, n = 0, a = 0, p = meta.p, h = letter_headers(q, id, meta), e = meta.e, f = meta.f,
      D = meta.D}
    record.enter(target, record.add(target, body, copy), copy, 'r')
    ids[i], metas[i] = number.text(id), meta
    held = held + #body
    if held > MOST_HELD_BYTES then
      record.flush(target)
      queue.gather(target)
      held = 0
    end
  end
  record.flush(target)
  queue.finish(target, 'seq', target.seq)
  record.drop_all(q, ids, metas)
  return true
end

-- Put the dead ({id, fields} each, in no index) where they are to be.
function letters.bury(q, dead)
  local elsewhere = q.limits and q.limits.dlq
  if elsewhere and move_elsewhere(q, dead) then
    return
  end
  for _, message in ipairs(dead) do
    local id, meta = message[1], message[2]
    if elsewhere then -- the sweeper may, with the daemon's own rights
      server.call('ZADD', q.prefix .. 'forward', number.text(q.now), id)
      volatile.note(q.name, q.now)
    else
      meta.w = nil
    end
    record.enter(q, id, meta, 'q', q.now)
  end
  local _, retention = queue.rules(q)
  if retention > 0 then
    queue.note_due(q, q.now + retention)
  end
end

-- Move dead letters, at most MAX_FORWARDED, that wait in this queue for somebody with rights on its dead letter queue.  True
-- if there are more.
function letters.forward(q)
  if not (q.limits and q.limits.dlq) then
    return false
  end
  local dead = {}
  for i, text in ipairs(server.call('ZRANGE', q.prefix .. 'forward', 0, MAX_FORWARDED - 1)) do
    dead[i] = {tonumber(text), record.load(q, text)}
  end
  return dead[1] ~= nil and move_elsewhere(q, dead) and #dead == MAX_FORWARDED
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
