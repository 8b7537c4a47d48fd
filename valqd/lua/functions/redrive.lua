-- redrive: moves dead letters back to ready, oldest first, in bounded steps.
-- Flags: allow-oom
-- KEYS: 1 queue, 2 the queue that they go to, if another
-- ARGV: mode, token of the last step ('' at first), kind (ALL, ID), target queue or '', limit or '', id ...
-- Returns: mode e: [moved by this step, token ('': done)]; mode n: moved in all
-- Errors: NOQUEUE PAUSED FULL
-- Complexity: O(m log n) for m messages moved, in steps of 300
local REDRIVE_STEP = 300
-- The token of a step that has only found what is dead by now.
local SETTLING = 'settling'
-- A token that ends so: no step until then has moved anything.
local NONE_MOVED = '^%d+:%d*:%d+:0$'

-- Move one dead letter to `target`: its fields if it was moved, else false, and the text of the FULL error when that has no
-- room.
local function redrive_one(q, target, id)
  local keeps = target == q -- the oldest, which would make way, may be what was just moved
  local full = add.make_room(target, 1, server.call('HSTRLEN', q.prefix .. 'body', id), keeps)
  if full then
    return false, full
  end
  local meta = record.load(q, id) -- its retention may be over, as was found on the way
  if meta and target == q then
    letters.redrive(q, id, meta)
  elseif meta then
    local body = server.pcall('HGET', q.prefix .. 'body', id)
    if not (letters.is_sound(body, meta) and pcall(record.drop, q, id, meta)) then
      return false
    end
    local copy = {t = meta.t, n = 0, a = 0, p = meta.p, v = meta.v, m = meta.m, h = meta.h, e = meta.e, f = meta.f, D = meta.D}
    local new_id = target.seq + 1
    local written, problem = pcall(function()
      record.enter(target, record.add(target, body, copy), copy, 'r')
    end)
    if not written then
      if server.pcall('HDEL', target.prefix .. 'body', new_id) == 1 then
        queue.count(target, 'bytes', -#body)
      end
      server.call('HSET', q.prefix .. 'body', id, body)
      letters.put_back(q, id, meta)
      error(problem, 0)
    end
  end
  return meta
end

-- When the last that is dead died: it may be later than now if the clock was set back.
local function last_death(q)
  return tonumber(server.call('ZRANGE', q.prefix .. 'dlq', -1, -1, 'WITHSCORES')[2] or 0)
end

-- One step: moved, token for the next ('' when done), text of a FULL error.
-- What dies later than the first step began is left: it may be what this moved.  (While the clock is behind the last death,
-- that cannot be told apart: no more are moved than were dead then.)
-- token: up to which death, how many are still to be moved at most, which of the ids is next.
local function redrive(q, target, args, token)
  local latest, left, at = token:match('^(%d+):(%d*):(%d+)')
  latest = tonumber(latest) or math.max(q.now, last_death(q))
  left = tonumber(left) or math.min(tonumber(args[5]) or queue.FOREVER, server.call('ZCARD', q.prefix .. 'dlq'))
  at = tonumber(at) or 0
  local moved = 0
  local ids = {}
  if args[3] == 'ID' then
    for i = 6 + at, math.min(#args, 5 + at + REDRIVE_STEP) do
      local id, n = receipt.parse(args[i])
      ids[#ids + 1] = n and '0' or id -- the lease of a receipt is over: it names nothing here
    end
  else
    ids = order.by_time(q, 'dlq', math.min(left, REDRIVE_STEP), 0)
  end
  ids = target ~= q and letters.first_step(q, ids) or ids
  at = at + #ids
  for _, id in ipairs(ids) do
    id = tonumber(id)
    local meta = left > moved and record.load(q, id)
    if meta and meta.s == 'q' and meta.D <= latest then
      local is_moved, full = redrive_one(q, target, id)
      if full then
        return moved, '', full
      end
      moved = moved + (is_moved and 1 or 0)
    end
  end
  left = left - moved
  local more = moved > 0
  if args[3] == 'ID' then
    more = 6 + at <= #args
  end
  if not more or left <= 0 then
    return moved, ''
  end
  return moved, number.text(latest) .. ':' .. number.text(left) .. ':' .. number.text(at)
end

local function call(keys, args)
  local is_stepped = reply.is_stepped(args[1])
  local is_first = args[2] == '' or args[2] == SETTLING
  local none_moved = is_first or args[2]:find(NONE_MOVED) ~= nil -- else what stops this step is no error
  local q = queue.open(keys[1])
  if not q then
    return none_moved and queue.missing(keys[1]) or {0, ''}
  end
  while life.settle(q, is_first and life.FULLY or life.BRIEFLY) do -- before the target is read: messages may die to it
    if is_stepped and is_first then
      queue.finish(q)
      return {0, SETTLING}
    elseif is_stepped then
      break
    end
  end
  local waits = letters.forward_first(q, is_stepped)
  queue.finish(q) -- before what may end the call
  if waits and is_first then
    return {0, SETTLING}
  end
  local target = q
  if args[4] ~= '' and keys[2] ~= keys[1] then
    target = queue.open(keys[2])
    if not target then
      return none_moved and queue.missing(keys[2]) or {0, ''}
    end
    life.settle(target, life.BRIEFLY)
    if queue.paused(target, 'in') then
      queue.finish(target)
      return none_moved and add.paused_error(target) or {0, ''}
    end
  end
  local moved, token = 0, args[2]
  local problem
  repeat
    local done, step
    done, step, token, problem = pcall(redrive, q, target, args, token)
    if not done then -- what was moved is counted there all the same
      queue.finish(target)
      error(step, 0)
    end
    moved = moved + step
  until token == '' or is_stepped
  queue.finish(q)
  if target ~= q then
    queue.finish(target)
  end
  if problem and moved == 0 and none_moved then
    return reply.error('FULL', problem)
  end
  if is_stepped then
    if none_moved and moved == 0 and token ~= '' then
      token = token .. ':0'
    end
    return {moved, token}
  end
  return moved
end
