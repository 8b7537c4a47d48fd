-- extend_many: the extends of several clients.
-- Flags: allow-oom
-- KEYS: 1 queue
-- ARGV: {id or receipt, ms} ...
-- Returns: for each its deadline, or the text of its error
-- Errors: NOQUEUE NOMSG NOTINFLIGHT STALE CANCELLED
-- Complexity: O(log n) each
local function call(keys, args)
  local q = queue.need(keys[1], queue.reused)
  life.settle(q, life.BRIEFLY)
  local results = {}
  for i = 1, #args, 2 do
    local deadline, code, text = receipt.extend(q, args[i], tonumber(args[i + 1]))
    results[#results + 1] = deadline or code .. ' ' .. text
  end
  queue.finish(q)
  return results
end
