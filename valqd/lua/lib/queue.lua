-- queue: the queue's own hash: configuration, cursors, counters.
-- requires: cache, clock, number, reply, volatile, waiters, limits
--
-- Keys of queue q, all under "valq:{q}:" (KEYS[1] of every function is "valq:{q}:queue", the rest follow from it):
--   queue      HASH  see FIELDS; also attempts and retention (ms), bytes, and INFO's other counters; created_at is there
--                    exactly when the queue is
--   log:<b>    LIST  bucket b holds ids b*128+1 .. (b+1)*128: two elements a slot, age (ms after created_at) and body;
--                    a slot of two empty elements belongs to a record or to a message that is gone
--   gone       HASH  bucket -> slots that no plain message uses any more; its fields are exactly the existing buckets
--   inflight   ZSET  id -> deadline ms                ready    ZSET  records only: id -> -priority*2^48 + id
--   delayed    ZSET  id -> due ms                     dlq      ZSET  id -> died_at ms
--   body       HASH  id -> body, records only         meta     HASH  id -> packed fields, records only
--   expiry     ZSET  id -> ms at which its TTL is over
--   dedup      HASH  key -> id                        windows  ZSET  dedup key -> ms at which its window is over
--   forward    ZSET  dead letters (id -> died_at ms) that are to be put into the dead letter queue: the caller had no right to,
--                    or they were too large for one call
--   sources    HASH  queues whose dead come here -> their created_at: set by who made them so, and could write here;
--                    outlives the queue
--   fence      set and removed at once: a write for WAIT
--   wake:<p>   set and removed at once: tells the daemon of post p (see waiters) that something is ready
--
-- A message is PLAIN while it has no option, priority 0 and at most PLAIN_BYTES, from its push to the ack of its first
-- delivery: it lives in its slot only, ready when its id is at or after `head`, else in flight if inflight has it.
-- Every other message is a RECORD (body, meta and exactly one of ready, inflight, delayed, dlq).

local queue = {}

queue.SLOTS = 128
queue.PLAIN_BYTES = 1024
queue.FOREVER = 9007199254740991
-- The largest id: up to it, ids keep apart what priorities say (record.PRIORITY_STEP).
local MOST_IDS = 281474976710656

-- Fields that every function reads, in the order of HMGET; the hash is created in this order.
--   state what hot functions change, see STATE; vt visibility timeout, ms;
--   limits packed table of what few queues have (see limits; trim: the sweep is to drop what is over them; spent: and to end
--   what is ready with its attempts used up, as far as HSCAN has come), or empty
local FIELDS = {'state', 'vt', 'limits', 'created_at'}

-- The field `state`, packed, since to read and write a field costs as much as most commands do:
--   seq last id; head first id of the log that may be ready; plain how many plain messages are ready;
--   due lower bound of the next time at which anything must be settled; delivered, acked totals;
--   may_have_ready, may_have_records 0 when there is certainly no ready record, or no record at all
local STATE = '>I7I7I7I7I7I7BB'
local STATE_BYTES = 44
-- The same as fields of their own, as they were before the library's revision 2.
local OLD_FIELDS = {'seq', 'head', 'plain', 'due', 'delivered', 'acked'}

-- An open queue, before anything is read into it; all fields named, for a table that grows is made anew.
local function blank()
  return {
    key = false, prefix = false, name = false, now = 0, seq = 0, head = 0, plain = 0, due = 0, vt = 0, created_at = 0,
    delivered = 0, acked = 0, may_have_ready = 0, may_have_records = 0, limits = false,
    counts = {}, -- what functions add to counters
    attempts = false, retention = false, -- see queue.rules
    changed = false, -- whether its state is to be written
    wakes = false, -- whether there may be something at the end for who waits
    gathered = false, -- see queue.put
    behind = false, settled = 0, -- see life.settle
    steps = 0, -- in which the call has settled what stood in its way
    slotless = 0, -- records added whose slots of the log are still to be written
    ended = false, -- see life.together
  }
end

-- For functions that open one queue and are called most: the same table for each call.
queue.reused = blank()

-- A queue's key as a pattern, its name captured.
queue.KEY = '^valq:{([^{}]+)}:queue$'

-- The name in a queue's key.  Another key, which who calls the functions themselves may give, would name another's queue.
function queue.name_of(key)
  return key:match(queue.KEY) or error("ERR this is no queue's key", 0)
end

local name_of = cache.of(queue.name_of, 1000)
local prefix_of = cache.of(function(key) return key:sub(1, -6) end, 1000)

-- As the field of that name holds them.
local function packed(bounds)
  return bounds and next(bounds) and cmsgpack.pack(bounds) or ''
end

-- The state of a queue of before revision 2, which has it from now on.
local function converted(key)
  local v = server.call('HMGET', key, unpack(OLD_FIELDS))
  for i = 1, #v do
    v[i] = tonumber(v[i]) or error('ERR this is no queue', 0)
  end
  v[7], v[8] = 1, 1
  local state = struct.pack(STATE, unpack(v))
  server.call('HSET', key, 'state', state)
  server.call('HDEL', key, unpack(OLD_FIELDS))
  return state
end

-- The queue to whose log this call has appended last, and the last id there.
queue.given_key, queue.given_seq = false, 0

-- A call on the queue of `key` has failed: what it wrote before is there, but its state was not saved.  So there may be
-- records; and ids whose slots are in the log are used up.
function queue.distrust(key)
  local state = key:match(queue.KEY) and server.pcall('HGET', key, 'state')
  if type(state) == 'string' and #state == STATE_BYTES then
    local seq = state:sub(1, 7)
    if queue.given_key == key and queue.given_seq > struct.unpack('>I7', seq) then
      seq = struct.pack('>I7', queue.given_seq)
    end
    server.pcall('HSET', key, 'state', seq .. state:sub(8, -3) .. '\1\1')
  end
end

-- Open the queue of `key`, as the table `q` if given; nil if there is none.  Its limits are a table or nil.
function queue.open(key, q)
  local v = server.call('HMGET', key, unpack(FIELDS))
  if not v[4] then
    return nil
  end
  local state = v[1] or converted(key)
  if #state ~= STATE_BYTES then
    error('ERR this is no queue', 0)
  end
  q = q or blank()
  if q.key ~= key then
    q.key, q.prefix, q.name = key, prefix_of(key), name_of(key)
  end
  q.now = clock.now()
  q.seq, q.head, q.plain, q.due, q.delivered, q.acked, q.may_have_ready, q.may_have_records = struct.unpack(STATE, state)
  q.vt = tonumber(v[2])
  q.limits = v[3] ~= '' and limits.unpack(v[3]) or nil
  q.created_at = tonumber(v[4])
  if not (q.head >= 1 and q.seq <= MOST_IDS) then
    error('ERR this is no queue', 0)
  end
  if q == queue.reused then -- what the last call left
    q.attempts, q.retention = false, false
    q.slotless, q.steps = 0, 0
    q.changed, q.wakes, q.behind, q.gathered, q.ended = false, false, false, false, false
    if next(q.counts) then
      q.counts = {}
    end
  end
  return q
end

-- Remove all keys of a queue but `sources`: what it dies to is made again.
function queue.wipe(key)
  queue.name_of(key) -- another key would name another's queue
  local p = prefix_of(key)
  local buckets = server.call('HKEYS', p .. 'gone')
  for from = 1, #buckets, 1000 do
    local names = {}
    for i = from, math.min(#buckets, from + 999) do
      names[#names + 1] = p .. 'log:' .. buckets[i]
    end
    server.call('UNLINK', unpack(names))
  end
  server.call('UNLINK', key, p .. 'gone', p .. 'inflight', p .. 'ready', p .. 'delayed', p .. 'dlq', p .. 'body', p .. 'meta',
    p .. 'expiry', p .. 'dedup', p .. 'windows', p .. 'forward')
end

-- Returns when it was created.
function queue.create(key, vt, attempts, retention, bounds)
  queue.wipe(key) -- what is left of one whose hash was evicted
  local created_at = clock.now()
  server.call('HSET', key, 'state', struct.pack(STATE, 0, 1, 0, queue.FOREVER, 0, 0, 0, 0), 'vt', vt, 'limits', packed(bounds),
    'created_at', number.text(created_at), 'attempts', attempts, 'retention', retention)
  return created_at
end

-- Open the queue of `key`, which must be there: else the call ends with NOQUEUE (see guard).
function queue.need(key, q)
  return queue.open(key, q) or error(queue.missing(key))
end

-- Open the queue of `key`, creating it with the defaults "vt_ms:attempts:retention_ms" if `auto` has some.
function queue.need_or_create(key, auto, q)
  local opened = queue.open(key, q)
  if opened then
    return opened
  end
  local vt, attempts, retention = auto:match('^(%d+):(%d+):(%d+)$')
  if not vt then
    error(queue.missing(key))
  end
  queue.create(key, vt, attempts, retention, nil)
  return queue.open(key, q)
end

function queue.missing(key)
  return reply.error('NOQUEUE', "no such queue '" .. queue.name_of(key) .. "'")
end

-- max_delivery_attempts and retention (ms), which only settling needs.
function queue.rules(q)
  if not q.attempts then
    local v = server.call('HMGET', q.key, 'attempts', 'retention')
    q.attempts = tonumber(v[1])
    q.retention = math.floor(v[2])
  end
  return q.attempts, q.retention
end

-- Add to a counter; written with the cursors (queue.save), once for all messages of a call.
function queue.count(q, field, by)
  q.counts[field] = (q.counts[field] or 0) + by
end

-- Bytes of the bodies of all records but the dead.
function queue.bytes(q)
  return tonumber(server.call('HGET', q.key, 'bytes') or 0) + (q.counts.bytes or 0)
end

local MOST_VALUES = 2000

-- Have a command (HSET, HDEL, ZADD, ZREM) write all these values to the key of that name.
function queue.write(q, command, name, values)
  for from = 1, #values, MOST_VALUES do
    server.call(command, q.prefix .. name, unpack(values, from, math.min(#values, from + MOST_VALUES - 1)))
  end
end

-- Write a pair (HSET, ZADD) to the key of that name, now, or while q.gathered is a table with others of the same key at
-- queue.flush: nothing may read it in between.
function queue.put(q, command, name, a, b)
  local gathered = q.gathered
  if not gathered then
    server.call(command, q.prefix .. name, a, b)
    return
  end
  local list = gathered[name]
  if not list then
    list = {command = command}
    gathered[name] = list
  end
  local n = #list
  list[n + 1] = a
  list[n + 2] = b
end

function queue.gather(q)
  q.gathered = {}
end

function queue.flush(q)
  local gathered = q.gathered
  q.gathered = false
  for name, list in pairs(gathered or {}) do
    queue.write(q, list.command, name, list)
  end
end

-- Something must be settled at `ms`: keep the lower bound, and have the sweeper come then.
-- A timer within a second that comes before all others also wakes who waits: they sleep until the earliest they know.
function queue.note_due(q, ms)
  if ms < q.due then
    if ms < q.now + 1000 then
      waiters.wake_all(q.name, q.now)
    end
    q.due = ms
    q.changed = true
    volatile.note(q.name, ms)
  end
end

-- Write back what a function changed in state and counters.
function queue.save(q)
  for field, by in pairs(q.counts) do
    if by ~= 0 then
      server.call('HINCRBY', q.key, field, number.text(by))
    end
    q.counts[field] = nil
  end
  if q.changed then
    q.changed = false
    local plain, due = q.plain > 0 and q.plain or 0, q.due > 0 and q.due or 0 -- keys may be lost: packed, -1 would be 2^56-1
    server.call('HSET', q.key, 'state', struct.pack(STATE, q.seq, q.head, plain, due, q.delivered, q.acked,
      q.may_have_ready, q.may_have_records))
  end
end

-- Whether PAUSE holds pushes ('in') or pops ('out') back now.
function queue.paused(q, way)
  local until_ms = q.limits and q.limits['pause_' .. way]
  return until_ms and until_ms > q.now
end

function queue.ready(q)
  return q.plain + server.call('ZCARD', q.prefix .. 'ready')
end

-- How many messages a POP could get.
function queue.available(q)
  return queue.paused(q, 'out') and 0 or queue.ready(q)
end

-- Wake who waits for what is ready, if anybody does.
function queue.wake(q)
  if waiters.lines[q.name] then
    waiters.wake(q.name, queue.available(q), q.now)
  end
end

function queue.save_limits(q)
  server.call('HSET', q.key, 'limits', packed(q.limits))
end

-- At the end of a function: write what is left to be written, and wake who waits for what became ready.
function queue.finish(q)
  queue.save(q)
  if q.wakes then
    queue.wake(q)
  end
end
