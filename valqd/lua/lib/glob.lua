-- glob: patterns as Valkey's KEYS and SCAN take them: * ? [set] [^set] and backslash.
-- requires: cache

local glob = {}

-- Items between two stars when some are ? or sets; as the daemon refuses more, who calls functions himself may not either.
local MAX_LOOSE = 32
local MAX_BYTES = 1024
-- Bytes that are something else in a Lua set, or need to be spelled otherwise: no range begins or ends with them.
local ODD = {[0] = true, [37] = true, [45] = true, [93] = true, [94] = true}

-- A Lua pattern for this byte and no other.
local function exactly(char)
  return char == '\0' and '%z' or (char:gsub('%W', '%%%0'))
end

-- A Lua set of these bytes (keys of `has`), as few ranges: it is gone through at each byte of a text.
local function ranges(has)
  local set = {}
  local byte = 0
  while byte <= 255 do
    local last = byte
    while has[byte] and has[last + 1] and not ODD[byte] and not ODD[last + 1] do
      last = last + 1
    end
    if last > byte then
      set[#set + 1] = string.char(byte) .. '-' .. string.char(last)
    elseif has[byte] then
      set[#set + 1] = exactly(string.char(byte))
    end
    byte = last + 1
  end
  return table.concat(set)
end

-- The set that begins behind the bracket at `i`, as a Lua pattern for one byte; where its last byte is.
local function set_at(pattern, i)
  local has = {}
  i = i + 1
  local negated = pattern:sub(i, i) == '^'
  if negated then
    i = i + 1
  end
  while i <= #pattern and pattern:sub(i, i) ~= ']' do
    local escaped = pattern:sub(i, i) == '\\' and i < #pattern
    if escaped then
      i = i + 1
    end
    local from = pattern:byte(i)
    local to = from
    if not escaped and pattern:sub(i + 1, i + 1) == '-' and i + 2 <= #pattern then -- as Valkey: ']' may end a range
      to = pattern:byte(i + 2)
      i = i + 2
    end
    for byte = math.min(from, to), math.max(from, to) do
      has[byte] = true
    end
    i = i + 1
  end
  if not next(has) then -- an empty set matches nothing, negated it matches all
    return negated and '.' or '[^%z%Z]', i
  end
  return '[' .. (negated and '^' or '') .. ranges(has) .. ']', i
end

-- The pieces between stars, each as a Lua pattern in which every item matches exactly one byte, how many items it has, and,
-- unless it has ? or a set, what it is literally.
local function pieces(pattern)
  local found = {}
  local piece, literally = {}, {} -- items; those of them that are literal bytes
  local function end_piece()
    found[#found + 1] = {table.concat(piece), #piece, #literally == #piece and table.concat(literally)}
    piece, literally = {}, {}
  end
  local i = 1
  while i <= #pattern do
    local char = pattern:sub(i, i)
    if char == '*' then
      end_piece()
    elseif char == '?' then
      piece[#piece + 1] = '.'
    elseif char == '[' then
      piece[#piece + 1], i = set_at(pattern, i)
    else
      if char == '\\' and i < #pattern then
        i = i + 1
        char = pattern:sub(i, i)
      end
      piece[#piece + 1] = exactly(char)
      literally[#literally + 1] = char
    end
    i = i + 1
  end
  end_piece()
  return found
end

local compiled = cache.of(pieces, 100)

-- Whether all of `text` matches.  A star never makes it go back: O(text) for each piece; times its items, which are
-- bounded, for one with ? or a set.
function glob.matches(pattern, text)
  if #pattern > MAX_BYTES then
    error('ERR a pattern is at most ' .. MAX_BYTES .. ' bytes long', 0)
  end
  local found = compiled(pattern)
  local first, last = found[1], found[#found]
  if not text:find('^' .. first[1]) then
    return false
  end
  if #found == 1 then
    return #text == first[2]
  end
  local at = first[2] + 1
  for i = 2, #found - 1 do
    if not found[i][3] and found[i][2] > MAX_LOOSE then
      error('ERR too many characters between two * of a pattern when ? or [] are among them', 0)
    end
    local _, stop = text:find(found[i][3] or found[i][1], at, found[i][3] and true)
    if not stop then
      return false
    end
    at = stop + 1
  end
  local tail = #text - last[2] + 1
  return tail >= at and text:find('^' .. last[1], tail) ~= nil
end
