-- push: adds one message or several, with options; all or nothing.
-- Flags: deny-oom
-- KEYS: 1 queue
-- ARGV: mode, auto, many ('1': answer an array), number of options, {name, value} ..., number of headers,
--       {field, value} ..., body ...
--       options: delay at vt ttl max_attempts priority dedup dedup_window dedup_until_done (ms, counts)
-- Returns: the id, or array of ids
-- Errors: NOQUEUE PAUSED FULL
-- Complexity: O(1) a message, O(log n) with options
local function call(keys, args)
  local mode, auto = args[1], args[2]
  local o, at = add.options(args, 4)
  if at > #args then
    error('ERR a push needs a body', 0)
  end
  local q = queue.need_or_create(keys[1], auto)
  add.settle(q)
  local count, bytes = #args - at + 1, 0
  for i = at, #args do
    bytes = bytes + #args[i]
  end
  if o and o.headers then
    add.bound_headers(o.headers, count)
  end
  local ids = {}
  local dedup = o and o.dedup
  local held = dedup and add.dedup_holder(q, dedup)
  if held then
    -- Of several bodies with one key the first is the message, the others its duplicates.
    queue.count(q, 'deduplicated', count)
    for i = 1, count do
      ids[i] = held
    end
  else
    local adds = dedup and 1 or count
    local full = add.make_room(q, adds, dedup and #args[at] or bytes)
    if full then
      queue.finish(q)
      return reply.error('FULL', full)
    end
    if o then
      queue.gather(q)
      for i = 1, adds do
        ids[i] = number.text(add.with_options(q, args[at + i - 1], o))
      end
      record.flush(q)
      for i = adds + 1, count do
        ids[i] = ids[1]
      end
      queue.count(q, 'deduplicated', count - adds)
    else
      local before = q.seq
      add.plain(q, args, at, #args)
      for i = 1, count do
        ids[i] = number.text(before + i)
      end
    end
  end
  queue.finish(q)
  return reply.in_mode(args[3] == '1' and ids or ids[1], mode)
end
