-- clock: the backing server's time, the only clock there is.
-- requires: nothing

local clock = {}

-- A test moves time by this many milliseconds (only in the library built for tests).
clock.offset_ms = 0

-- Unix time in milliseconds, with fraction.
function clock.exact()
  local t = server.call('TIME')
  return t[1] * 1000 + t[2] / 1000 + clock.offset_ms
end

-- Unix time in whole milliseconds.
function clock.now()
  return math.floor(clock.exact())
end
