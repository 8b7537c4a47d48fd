-- pop_many: the pops of several clients, in order.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: auto, then for each run: how many equal pops, and their spec (see lib/runs)
-- Returns: for each run the encoded replies of its pops joined (or fragments of them); runs left out got nothing
-- Errors: NOQUEUE ERR
-- Complexity: O(log n) a message
local function call(keys, args)
  local q = queue.open(keys[1], queue.reused)
  if not q then
    if args[1] == '' then
      return queue.missing(keys[1])
    end
    return {}
  end
  local kinds, reps = runs.read(args, 2) -- before anything is changed: it may end the call
  life.settle(q, life.FULLY)
  local results = {}
  local total = 0
  local at, last = 1, #kinds
  while at <= last do
    -- Runs that ask for the same kind of delivery are taken at once.
    local first = kinds[at]
    local to = at
    local want = 0
    local alone = first.many and q.may_have_ready ~= 0 -- what it gets may be large: it has its room for itself
    repeat
      want = want + reps[to] * kinds[to].want
      to = to + 1
    until to > last or alone or (kinds[to] ~= first and not runs.alike(first, kinds[to]))
    local taken = pop.take(q, want, first)
    total = total + #taken.ids
    runs.deal(q, kinds, reps, at, to - 1, taken, results)
    at = to
  end
  pop.finish(q, total)
  return results
end
