-- push_many: plain pushes of several clients.
-- Flags: deny-oom
-- KEYS: 1 queue
-- ARGV: auto, body ...
-- Returns: the first id, when all have consecutive ones; else for each body its id, or the text of its error
-- Errors: NOQUEUE PAUSED FULL
-- Complexity: O(1) a message
local function call(keys, args)
  local q = queue.need_or_create(keys[1], args[1], queue.reused)
  local full
  if q.limits then
    add.settle(q)
    local bytes = 0
    for i = 2, #args do
      bytes = bytes + #args[i]
    end
    full = add.make_room(q, #args - 1, bytes)
  end
  if not full then
    local first = q.seq + 1
    add.plain(q, args, 2, #args)
    queue.finish(q)
    return first
  end
  local results = {} -- some are refused
  for i = 2, #args do
    full = add.make_room(q, 1, #args[i])
    if full then
      results[i - 1] = 'FULL ' .. full
    else
      add.plain(q, args, i, i)
      results[i - 1] = q.seq
    end
  end
  queue.finish(q)
  return results
end
