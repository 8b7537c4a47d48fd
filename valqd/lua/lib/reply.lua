-- reply: one tree of values, finished as the caller asked.
-- requires: cache, number
--
-- Values: a number is an integer, a string a bulk string, false a null, reply.OK that status, {map = {k, v, k, v ...}} a
-- map, any other table an array.  Who may write a queue's keys may put anything there: no value breaks a reply's form.
-- Modes: n2, n3 native (RESP2, RESP3); e2, e3 encoded: the very bytes for a client of that protocol version, as one bulk
-- string, or as an array of them when a body of FRAGMENT_BYTES or more is inside (it is not copied into a larger one).

local reply = {}

reply.FRAGMENT_BYTES = 16384
reply.OK = {ok = 'OK'}
-- The largest double that is a 64-bit integer: a due time 585 billion years ahead is told as this.
local MAX_INTEGER = 9223372036854774784

-- A field's name, encoded.
local encoded_name = cache.of(function(name)
  return '$' .. #name .. '\r\n' .. name .. '\r\n'
end, 200)

-- A number as a reply can hold it.
function reply.integer(value)
  return value == value and math.max(-MAX_INTEGER, math.min(value, MAX_INTEGER)) or 0
end

-- Append the encoded value to the array `out`.
function reply.append(out, value, resp3)
  local kind = type(value)
  if kind == 'string' then
    local n = #out
    if #value >= reply.FRAGMENT_BYTES then
      out.large = true
    end
    out[n + 1] = '$' .. #value .. '\r\n'
    out[n + 2] = value
    out[n + 3] = '\r\n'
  elseif kind == 'number' then
    out[#out + 1] = ':' .. number.text(reply.integer(value)) .. '\r\n'
  elseif value == false then
    out[#out + 1] = resp3 and '_\r\n' or '$-1\r\n'
  elseif value == reply.OK then
    out[#out + 1] = '+OK\r\n'
  elseif value.map then
    local items = value.map
    out[#out + 1] = (resp3 and '%' .. #items / 2 or '*' .. #items) .. '\r\n'
    for i = 1, #items, 2 do
      out[#out + 1] = encoded_name(items[i])
      reply.append(out, items[i + 1], resp3)
    end
  else
    out[#out + 1] = '*' .. #value .. '\r\n'
    for i = 1, #value do
      reply.append(out, value[i], resp3)
    end
  end
end

-- The encoded parts as one string, or as fragments when a large body is among them.
function reply.join(out)
  if not out.large then
    return table.concat(out)
  end
  local fragments = {}
  local start = 1
  for i = 1, #out do
    if #out[i] >= reply.FRAGMENT_BYTES then
      if i > start then
        fragments[#fragments + 1] = table.concat(out, '', start, i - 1)
      end
      fragments[#fragments + 1] = out[i]
      start = i + 1
    end
  end
  if start <= #out then
    fragments[#fragments + 1] = table.concat(out, '', start)
  end
  return fragments
end

local function native(value, resp3)
  if type(value) == 'number' then
    return reply.integer(value)
  end
  if type(value) ~= 'table' or value == reply.OK then
    return value
  end
  local result = {}
  if value.map then
    local items = value.map
    if resp3 then
      for i = 1, #items, 2 do
        result[items[i]] = native(items[i + 1], resp3)
      end
      return {map = result}
    end
    value = items
  end
  for i = 1, #value do
    result[i] = native(value[i], resp3)
  end
  return result
end

-- Whether this is mode e: a daemon asks, which calls again for the next step.
function reply.is_stepped(mode)
  return mode:byte(1) == 101
end

-- The function's reply for `value` in `mode`.
function reply.in_mode(value, mode)
  local resp3 = mode:byte(2) == 51
  if mode:byte(1) == 110 then
    return native(value, resp3)
  end
  local out = {}
  reply.append(out, value, resp3)
  return reply.join(out)
end

-- The text of the last error reply that was made here: raised by a helper, it ends the call in good order (see guard).
reply.last_error = false

function reply.error(code, text)
  reply.last_error = code .. ' ' .. text
  return server.error_reply(reply.last_error)
end
