-- number: numbers as the strings that commands take; Lua's own conversion writes large ones as 1e+15.
-- requires: nothing

local number = {}

-- A whole number, however large, in decimal digits.
function number.text(value)
  return string.format('%.0f', value)
end

-- An id in decimal digits.
function number.id(value)
  return value < 100000000000000 and value .. '' or string.format('%.0f', value)
end

-- Milliseconds as seconds: digits only when whole, else with up to three decimals (a string).
function number.seconds(ms)
  if ms % 1000 == 0 then
    return ms / 1000
  end
  return (string.format('%.3f', ms / 1000):gsub('0+$', ''))
end
