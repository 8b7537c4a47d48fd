-- runs: the replies of merged pops.
-- requires: cache, number, reply, queue, pop

local runs = {}

-- What one call may ask for: a daemon's asks for fewer (511, and one POP COUNT 10000), and who calls the function himself
-- may not ask for more.
local MOST_ASKED_FOR = 11000

-- What each POP of a run asks for, by its spec: "resp,count,vt,flags", or '' for one message in RESP2; with ",post" when it
-- has waited in line (see waiters).  Clients send few different ones.
local kind_of = cache.of(function(spec)
  local resp, count, vt, flags, post = (spec == '' and '2,,,' or spec):match('^(%d),(%d*),(%d*),(%a*),?(.*)$')
  local kind = pop.options(count, vt, flags, post ~= '' and post or nil)
  kind.resp3 = resp == '3'
  kind.flags = flags
  kind.plain = not kind.many and flags == '' -- one message and nothing special
  kind.null = resp == '3' and '_\r\n' or '$-1\r\n'
  kind.heads = {}
  for size = 1, 20 do
    kind.heads[size] = (resp == '3' and '%4' or '*8') .. '\r\n$2\r\nid\r\n$' .. size .. '\r\n'
  end
  return kind
end, 1000)

-- The kinds of the runs in args[from] ..., and how many pops each is.
function runs.read(args, from)
  local found, reps = {}, {}
  local n, total = 0, 0
  local spec, kind
  for i = from, #args, 2 do
    n = n + 1
    if args[i + 1] ~= spec then
      spec = args[i + 1]
      kind = kind_of(spec)
    end
    found[n] = kind
    reps[n] = args[i] == '1' and 1 or tonumber(args[i])
    total = reps[n] >= 0 and total + reps[n] * math.max(1, kind.want) or math.huge
  end
  if not (total <= MOST_ASKED_FOR) then
    error('ERR too many messages in one call', 0)
  end
  return found, reps
end

-- Whether messages for both can be taken at once.
function runs.alike(a, b)
  return a.many == b.many and a.vt == b.vt and a.flags == b.flags and not a.post and not b.post
end

-- Parts of an encoded delivery, by the size that they announce: making a number a string is what takes time.
local BODY_HEADS = {}
local RECEIPT_HEADS = {}
for size = 0, queue.PLAIN_BYTES do
  BODY_HEADS[size] = '\r\n$4\r\nbody\r\n$' .. size .. '\r\n'
end
for size = 1, 20 do
  RECEIPT_HEADS[size] = '\r\n$8\r\nattempts\r\n:1\r\n$7\r\nreceipt\r\n$' .. size + 2 .. '\r\n'
end

-- The encoded first delivery of a message without headers, asked for without options: the hot case, one concatenation.
local function first_delivery(heads, id, body)
  local size = #id
  return heads[size] .. id .. BODY_HEADS[#body] .. body .. RECEIPT_HEADS[size] .. id .. '-1\r\n'
end

-- The same of any delivery.
local function later_delivery(heads, id, body, meta)
  local its_receipt = id .. '-' .. number.text(meta.n)
  return heads[#id] .. id .. (BODY_HEADS[#body] or '\r\n$4\r\nbody\r\n$' .. #body .. '\r\n') .. body
    .. '\r\n$8\r\nattempts\r\n:' .. number.text(reply.integer(meta.a)) .. '\r\n$7\r\nreceipt\r\n$' .. #its_receipt .. '\r\n' .. its_receipt .. '\r\n'
end

-- Whether a delivery without options has nothing but id, body, attempts and receipt in it, and these are 1 and the first.
local function is_first(meta, body)
  return not meta or (meta.n == 1 and meta.a == 1 and not meta.h and BODY_HEADS[#body])
end

-- Append to `results` what the runs `from` to `to` get of what was taken for all of them.
function runs.deal(q, kinds_of, reps_of, from, to, taken, results)
  local ids, bodies, metas = taken.ids, taken.bodies, taken.metas
  local count = #ids
  local r = #results
  local at = 1
  for run = from, to do
    local kind = kinds_of[run]
    local reps = reps_of[run]
    r = r + 1
    if reps == 1 and kind.plain and at <= count and is_first(metas[at], bodies[at]) then
      results[r] = first_delivery(kind.heads, ids[at], bodies[at])
      at = at + 1
    else
      local out = {}
      local o = 0
      for _ = 1, reps do
        local take = math.min(kind.want, count - at + 1)
        if kind.many then
          o = o + 1
          out[o] = '*' .. take .. '\r\n'
        elseif take == 0 then
          o = o + 1
          out[o] = kind.null
        end
        for i = at, at + take - 1 do
          local meta = metas[i]
          if kind.flags == '' and is_first(meta, bodies[i]) then
            o = o + 1
            out[o] = first_delivery(kind.heads, ids[i], bodies[i])
          elseif meta and not meta.h and kind.flags == '' and #bodies[i] < reply.FRAGMENT_BYTES then
            o = o + 1
            out[o] = later_delivery(kind.heads, ids[i], bodies[i], meta)
          else
            reply.append(out, pop.delivery(q, taken, i, kind), kind.resp3)
            o = #out
          end
        end
        at = at + take
      end
      results[r] = reply.join(out)
    end
  end
end
