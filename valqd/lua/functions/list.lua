-- list: the names of the queues that the caller may read, in bounded steps.
-- Flags: no-writes allow-cross-slot-keys
-- KEYS: none
-- ARGV: mode, token of the last step ('' at first), pattern ('' all)
-- Returns: mode e: [names that this step found, token ('': done)]; mode n: all names, sorted
-- Errors: ERR
-- Complexity: O(n) for n keys of the database, in steps of about 1000

-- Whether a command was refused since its caller may not.
local function is_denied(problem)
  return problem.err:find('^ERR ACL failure') or problem.err:find('^NOPERM')
end

-- One SCAN step: next cursor and the names of queues that match and that the caller may read.
local function names_in_step(pattern, cursor)
  local odd = pattern:find('[%[\\]') -- it might take what follows the name in the key for its own
  local match = 'valq:{' .. ((odd or pattern == '') and '*' or pattern) .. '}:queue'
  local step = server.call('SCAN', cursor, 'MATCH', match, 'COUNT', 1000, 'TYPE', 'hash')
  local names = {}
  for _, key in ipairs(step[2]) do
    local readable = server.pcall('HEXISTS', key, 'created_at')
    if type(readable) == 'table' and not is_denied(readable) then
      error(readable)
    end
    local name = key:match(queue.KEY)
    if name and readable == 1 and (not odd or glob.matches(pattern, name)) then
      names[#names + 1] = name
    end
  end
  return step[1], names
end

-- Order by bytes: Lua's own is that of the server's locale.
local function before(a, b)
  local alike, most = 0, math.min(#a, #b) -- the first so many bytes, at least and at most
  while alike < most do
    local middle = math.ceil((alike + most) / 2)
    if a:sub(alike + 1, middle) == b:sub(alike + 1, middle) then
      alike = middle
    else
      most = middle - 1
    end
  end
  return (a:byte(alike + 1) or -1) < (b:byte(alike + 1) or -1)
end

local function call(_, args)
  local seen, names = {}, {}
  local cursor = args[2] ~= '' and args[2] or '0'
  repeat
    local found
    cursor, found = names_in_step(args[3], cursor)
    for _, name in ipairs(found) do
      if not seen[name] then
        seen[name] = true
        names[#names + 1] = name
      end
    end
  until cursor == '0' or reply.is_stepped(args[1])
  if reply.is_stepped(args[1]) then -- the daemon sorts all together
    return {names, cursor ~= '0' and cursor or ''}
  end
  table.sort(names, before)
  return names
end
