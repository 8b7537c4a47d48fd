-- view: one message as SHOW, PEEK and SCAN tell of it.
-- requires: number, log, record

local view = {}

-- The value for a record, or for a plain message that is 'ready' or 'inflight' (age and body as in its slot).
local function shown(q, id, where, meta, age, body)
  local state = where
  local deadline = false
  if where == 'record' then
    state = record.INDEX[meta.s]
    body = body or server.call('HGET', q.prefix .. 'body', id)
    if state == 'inflight' or state == 'delayed' then
      deadline = tonumber(server.call('ZSCORE', q.prefix .. record.INDEX[meta.s], id))
    end
  elseif where == 'inflight' then
    deadline = tonumber(server.call('ZSCORE', q.prefix .. 'inflight', id))
  end
  meta = meta or {t = log.enqueued_at(q, age), n = where == 'inflight' and 1 or 0, a = where == 'inflight' and 1 or 0}
  return {map = {
    'id', number.text(id),
    'state', state,
    'body', body,
    'attempts', meta.a,
    'deliveries', meta.n,
    'deadline', state == 'inflight' and deadline or false,
    'due', state == 'delayed' and deadline or false,
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

-- The value for message `id`, or nil.  where, meta: as record.find gave them, if it was asked.
function view.find(q, id, where, meta)
  if not where then
    where, meta = record.find(q, id)
  end
  if not where then
    return nil
  end
  if where == 'record' then
    return shown(q, id, where, meta)
  end
  local age, body = log.read(q, id)
  return age and shown(q, id, where, nil, age, body)
end
