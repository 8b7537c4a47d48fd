-- cache: values that are made when they are first asked for.
-- requires: nothing

local cache = {}

-- Longer keys are not kept: who calls functions himself could fill the memory with them.
local MAX_KEY_BYTES = 512

-- A function that gives make(key), made once for each key.  Bounded by starting afresh after `most` of them.
function cache.of(make, most)
  local values, count = {}, 0
  return function(key)
    local value = values[key]
    if value == nil then
      value = make(key)
      if #key > MAX_KEY_BYTES then
        return value
      end
      if count >= most then
        values, count = {}, 0
      end
      count = count + 1
      values[key] = value
    end
    return value
  end
end
