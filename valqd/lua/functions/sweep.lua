-- sweep: settles a queue without anyone popping, and gives memory back.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: '1' to look at everything once, most messages of a kind
-- Returns: 1 if there is more to do now, as `due` will say too, else 0
-- Errors: none
-- Complexity: O(m log n) for m messages that are due
local function call(keys, args)
  local q = queue.open(keys[1])
  if not q then
    return 0
  end
  if args[1] == '1' then
    q.due = math.min(q.due, q.now)
  end
  local more = life.settle(q, tonumber(args[2]))
  if q.due < queue.FOREVER then
    volatile.note(q.name, q.due)
  end
  more = compact.step(q) or more
  more = life.end_spent(q) or more
  more = letters.forward(q) or more
  more = more or add.trim(q)
  if more then
    volatile.note(q.name, q.now)
  end
  q.wakes = true -- whoever was woken for what is still ready may be gone
  queue.finish(q)
  return more and 1 or 0
end
