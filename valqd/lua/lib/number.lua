-- number: numbers as commands and replies take them; Lua's own conversion to a string writes large ones as 1e+15.
-- requires: nothing

local number = {}

-- A whole number as a command's argument: Valkey itself writes integers up to 2^53 exactly, and faster than Lua.
function number.arg(value)
  return value < 9007199254740992 and value or string.format('%.0f', value)
end

local SMALL, PAIRS = {}, {}
for value = 0, 99 do
  SMALL[value] = value .. ''
  PAIRS[value] = (value < 10 and '0' or '') .. value
end
local hundreds, hundreds_text

-- A whole number, however large, in decimal digits.
function number.text(value)
  return SMALL[value] or string.format('%.0f', value)
end

-- An id (a number, or its digits) in decimal digits.  Ids come in rows, and joining two strings is much cheaper than making
-- digits of a number.
function number.id(value)
  local high = math.floor(value / 100)
  if high == 0 then
    return value .. ''
  end
  if high ~= hundreds then
    hundreds = high
    hundreds_text = string.format('%.0f', high)
  end
  return hundreds_text .. PAIRS[value - high * 100]
end

-- Milliseconds as seconds: digits only when whole, else with up to three decimals (a string).
function number.seconds(ms)
  if ms % 1000 == 0 then
    return ms / 1000
  end
  return (string.format('%.3f', ms / 1000):gsub('0+$', ''))
end
