-- view: one message as SHOW, PEEK and SCAN tell of it.
-- requires: number, log, record

local view = {}

local BODY, HEADERS = 6, 18 -- where they stand in a value's map

-- What a value weighs in a reply of several.
function view.weight(message)
  return record.weight(#(message.map[BODY] or ''), message.map[HEADERS].map)
end

-- The value for message `id`, or nil.
function view.find(q, id)
  local state, meta = record.find(q, id)
  if not state then
    return nil
  end
  local age, body
  if meta then
    body = server.call('HGET', q.prefix .. 'body', id)
  else
    age, body = log.read(q, id)
    if not age then
      return nil
    end
    local deliveries = state == 'inflight' and 1 or 0
    meta = {t = log.enqueued_at(q, age), n = deliveries, a = deliveries}
  end
  local ends = (state == 'inflight' or state == 'delayed') and tonumber(server.call('ZSCORE', q.prefix .. state, id))
  return {map = {
    'id', number.text(id),
    'state', state,
    'body', body,
    'attempts', meta.a,
    'deliveries', meta.n,
    'deadline', state == 'inflight' and ends or false,
    'due', state == 'delayed' and ends or false,
    'priority', meta.p or 0,
    'headers', {map = meta.h or {}},
    'dedup', meta.k or false,
    'visibility_timeout', meta.v and number.seconds(meta.v) or false,
    'max_attempts', meta.m or false,
    'expires_at', meta.x or false,
    'enqueued_at', meta.t,
    'last_error', meta.e or false,
    'failed_at', meta.f or false,
    'died_at', meta.D or false,
    'cancelled', meta.c or 0,
  }}
end
