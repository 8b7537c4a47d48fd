-- glob: patterns as Valkey's KEYS and SCAN take them: * ? [set] [^set] and backslash.
-- requires: cache

local glob = {}

-- What is compared at each byte of a text, at most, to find what stands between two stars when ? or sets are in it: an item
-- is one comparison, a set as many as it has ranges.
local MAX_LOOSE = 32
local MAX_BYTES = 1024
-- And in so many bytes of a text: it is looked for nowhere behind them.
local MAX_LOOSE_BYTES = 1048576
-- Bytes that are something else in a Lua set, or need to be spelled otherwise: no range begins or ends with them.
local ODD = {[0] = true, [37] = true, [45] = true, [93] = true, [94] = true}

-- A Lua pattern for this byte and no other.
local function exactly(char)
  return char == '\0' and '%z' or (char:gsub('%W', '%%%0'))
end

-- A Lua set of these bytes (keys of `has`), as few ranges, for it is gone through at each byte of a text; how many.
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
  return table.concat(set), #set
end

-- The set that begins behind the bracket at `i`, as a Lua pattern for one byte; where its last byte is; how many ranges.
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
    return negated and '.' or '[^%z%Z]', i, 1
  end
  local others = {}
  for byte = 0, 255 do
    others[byte] = not has[byte] or nil
  end
  local set, count = ranges(has)
  local other_set, other_count = ranges(others)
  if other_count > 0 and other_count < count then
    set, count, negated = other_set, other_count, not negated
  end
  return '[' .. (negated and '^' or '') .. set .. ']', i, count
end

-- The pieces between stars, each as a Lua pattern in which every item matches exactly one byte, how many items it has, and,
-- unless it has ? or a set, what it is literally.  Ends the call if one takes too long to be looked for.
local function pieces(pattern)
  local found = {}
  local piece, literally, compared = {}, {}, 0 -- items; those of them that are literal bytes; comparisons
  local function end_piece(is_last)
    local is_literal = #literally == #piece
    if compared > MAX_LOOSE and not is_literal and found[1] and not is_last then
      error('ERR too much between two * of a pattern when ? or [] are among it', 0)
    end
    found[#found + 1] = {table.concat(piece), #piece, is_literal and table.concat(literally)}
    piece, literally, compared = {}, {}, 0
  end
  local i = 1
  while i <= #pattern do
    local char = pattern:sub(i, i)
    local ranges_here = 1
    if char == '*' then
      end_piece(false)
      ranges_here = 0
    elseif char == '?' then
      piece[#piece + 1] = '.'
    elseif char == '[' then
      piece[#piece + 1], i, ranges_here = set_at(pattern, i)
    else
      if char == '\\' and i < #pattern then
        i = i + 1
        char = pattern:sub(i, i)
      end
      piece[#piece + 1] = exactly(char)
      literally[#literally + 1] = char
    end
    compared = compared + ranges_here
    i = i + 1
  end
  end_piece(true)
  return found
end

local compiled = cache.of(pieces, 100)

-- Ends the call if the pattern is too long, or takes too long to be looked for.
function glob.check(pattern)
  if #pattern > MAX_BYTES then
    error('ERR a pattern is at most ' .. MAX_BYTES .. ' bytes long', 0)
  end
  return compiled(pattern)
end

-- Whether all of `text` matches.  A star never makes it go back: O(text) for all pieces; times what is compared, which is
-- bounded, for those with ? or a set.
function glob.matches(pattern, text)
  local found = glob.check(pattern)
  local first, last = found[1], found[#found]
  if not text:find('^' .. first[1]) then
    return false
  end
  if #found == 1 then
    return #text == first[2]
  end
  local at = first[2] + 1
  for i = 2, #found - 1 do
    local literal = found[i][3]
    local where = (literal or #text <= MAX_LOOSE_BYTES) and text or text:sub(1, MAX_LOOSE_BYTES)
    local _, stop = where:find(literal or found[i][1], at, literal and true)
    if not stop then
      return false
    end
    at = stop + 1
  end
  local tail = #text - last[2] + 1
  return tail >= at and text:find('^' .. last[1], tail) ~= nil
end
