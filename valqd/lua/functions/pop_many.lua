-- pop_many: the pops of several clients, in order.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: auto, then for each run: how many equal pops, and their spec: '' (one message, RESP2) or "resp,count,vt,flags"
-- Returns: for each run the encoded replies of its pops joined (or fragments of them); runs left out got nothing
-- Errors: NOQUEUE
-- Complexity: O(log n) a message
local function call(keys, args)
  local q = queue.open(keys[1])
  if not q then
    if args[1] == '' then
      return queue.missing(keys[1])
    end
    return {}
  end
  life.settle(q, 200)
  local results = {}
  local total = 0
  local at = 2
  while args[at] do
    -- Runs that ask for the same kind of delivery are taken at once.
    local first = runs.parse(args[at], args[at + 1])
    local group = {first}
    local want = first.reps * first.want
    at = at + 2
    while args[at] do
      local run = runs.parse(args[at], args[at + 1])
      if run.vt ~= first.vt or run.flags ~= first.flags then
        break
      end
      group[#group + 1] = run
      want = want + run.reps * run.want
      at = at + 2
    end
    local ids, bodies, ages, metas = pop.take(q, want, first.vt, first.noack)
    total = total + #ids
    runs.deal(q, group, ids, bodies, ages, metas, results)
    if #ids < want then
      -- Nothing is left: what follows got nothing, but an answer at its place is due when this is not the end.
      while args[at] do
        local run = runs.parse(args[at], args[at + 1])
        runs.deal(q, {run}, {}, {}, {}, {}, results)
        at = at + 2
      end
    end
  end
  pop.finish(q, total)
  return results
end
