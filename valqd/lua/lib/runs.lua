-- runs: the replies of merged pops.
-- requires: number, reply, queue, log, record, pop

local runs = {}

-- One run of equal pops: `reps` of them, each wanting `want` messages.  `many`: each answers an array.
function runs.parse(reps, spec)
  local run = {reps = tonumber(reps), want = 1, flags = '', resp3 = false}
  if spec ~= '' then
    local resp, count, vt, flags = spec:match('^(%d),(%d*),(%d*),(%a*)$')
    run.resp3 = resp == '3'
    run.many = count ~= ''
    run.want = tonumber(count) or 1
    run.vt = tonumber(vt)
    run.flags = flags
    run.noack = flags:find('N', 1, true) ~= nil
    run.with_meta = flags:find('M', 1, true) ~= nil
  end
  return run
end

-- The encoded delivery of a plain message without options: the hot case, one concatenation.
local function plain_delivery(id, body, head)
  local text = number.text(id)
  local size = #text
  return head .. size .. '\r\n' .. text .. '\r\n$4\r\nbody\r\n$' .. #body .. '\r\n' .. body
    .. '\r\n$8\r\nattempts\r\n:1\r\n$7\r\nreceipt\r\n$' .. size + 2 .. '\r\n' .. text .. '-1\r\n'
end

-- Append to `results` what each run of the group gets of the messages taken for all of them.
function runs.deal(q, group, ids, bodies, ages, metas, results)
  local count = #ids
  local at = 1
  for _, run in ipairs(group) do
    local out = {}
    local head = run.resp3 and '%4\r\n$2\r\nid\r\n$' or '*8\r\n$2\r\nid\r\n$'
    local simple = run.flags == ''
    for _ = 1, run.reps do
      local take = math.min(run.want, count - at + 1)
      if run.many then
        out[#out + 1] = '*' .. take .. '\r\n'
      elseif take == 0 then
        out[#out + 1] = run.resp3 and '_\r\n' or '$-1\r\n'
      end
      for i = at, at + take - 1 do
        local body = bodies[i]
        if simple and not metas[i] and #body < FRAGMENT_BYTES then
          out[#out + 1] = plain_delivery(ids[i], body, head)
        else
          local value = pop.delivery(q, ids[i], body, ages[i], metas[i], run.vt, run.noack, run.with_meta)
          reply.append(out, value, run.resp3)
        end
      end
      at = at + take
    end
    results[#results + 1] = reply.join(out)
  end
end
