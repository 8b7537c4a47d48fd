-- redrive: moves dead letters back to ready, oldest first, in bounded steps.
-- Flags: allow-oom
-- KEYS: 1 queue, 2 the queue that they go to, if another
-- ARGV: mode, token of the last step ('' at first), kind (ALL, ID), target queue or '', limit or '', id ...
-- Returns: mode e: [moved by this step, token ('': done)]; mode n: moved in all
-- Errors: NOQUEUE PAUSED FULL
-- Complexity: O(m log n) for m messages moved, in steps of 1000
local function call(keys, args)
  local is_first = args[2] == '' -- what stops a later step is no error: messages were moved
  local q = queue.open(keys[1])
  if not q then
    return is_first and queue.missing(keys[1]) or {0, ''}
  end
  repeat -- before the target is read: it may be where messages die to
    local more = life.settle(q, life.BRIEFLY)
  until not more or reply.is_stepped(args[1])
  local target = q
  if args[4] ~= '' then
    target = queue.open(keys[2])
    if not target then
      life.finish(q)
      return is_first and queue.missing(keys[2]) or {0, ''}
    end
    life.settle(target, life.BRIEFLY)
    if queue.paused(target, 'in') then
      life.finish(target)
      life.finish(q)
      return is_first and add.paused_error(target) or {0, ''}
    end
  end
  local moved, token = 0, args[2]
  local problem
  repeat
    local step
    step, token, problem = bulk.redrive(q, target, args, token)
    moved = moved + step
  until token == '' or reply.is_stepped(args[1])
  life.finish(q)
  if target ~= q then
    add.finish(target)
  end
  if problem and moved == 0 and is_first then
    return reply.error('FULL', problem)
  end
  if reply.is_stepped(args[1]) then
    return {moved, token}
  end
  return moved
end
