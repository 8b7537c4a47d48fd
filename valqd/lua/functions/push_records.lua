-- push_records: pushes with options of several clients, each by itself.
-- Flags: deny-oom
-- KEYS: 1 queue
-- ARGV: auto, then for each push: its options and headers (as ARGV has them in push) as a packed array, and its body
-- Returns: the first id, when all have consecutive ones; else for each push its id, or the text of its error
-- Errors: NOQUEUE PAUSED FULL
-- Complexity: O(log n) a message

-- Make room for all pushes, if none has a dedup key, and there can be: whether there is.
local function make_room_for_all(q, args)
  local bytes = 0
  for i = 2, #args, 2 do
    if add.packed_options(args[i]).dedup then
      return false
    end
    bytes = bytes + #args[i + 1]
  end
  return not add.make_room(q, (#args - 1) / 2, bytes)
end

local function call(keys, args)
  local q = queue.need_or_create(keys[1], args[1], queue.reused)
  add.settle(q)
  -- Room for all of them at once costs a fraction; where a key may be held, or there is too little, each is looked at.
  local one_by_one = q.limits and (q.limits.max_length or q.limits.max_bytes) and not make_room_for_all(q, args)
  local results = {}
  local n, added = 0, 0
  queue.gather(q)
  for i = 2, #args, 2 do
    local o, body = add.packed_options(args[i]), args[i + 1]
    if one_by_one or (o.dedup and q.behind) then -- what was added is looked at
      record.flush(q)
      queue.gather(q)
    end
    local held = o.dedup and add.dedup_holder(q, o.dedup)
    local full = one_by_one and not held and add.make_room(q, 1, #body)
    n = n + 1
    if held then
      queue.count(q, 'deduplicated', 1)
      results[n] = tonumber(held)
    elseif full then
      results[n] = 'FULL ' .. full
    else
      results[n] = add.with_options(q, body, o)
      added = added + 1
    end
  end
  record.flush(q)
  queue.finish(q)
  return added == n and results[1] or results
end
