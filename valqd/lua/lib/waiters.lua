-- waiters: the clients that wait for a queue, at whichever daemon, and whose turn it is.
-- requires: volatile
--
-- A post is the clients of one worker process that wait in one database: 'daemon/database'.  A function does not know
-- in which database it runs: it wakes posts of every one, those of another find nothing and register again.
--
-- lines   queue -> post -> {db, count: clients that wait; since: exact ms of the registration; places: packed, two numbers
--         for each of the first `known` of them: for how many ms it had waited by then, and how many messages it takes;
--         served: how many of them got something since; woken_ms: when the post was woken, false when it has asked since}
-- checks  queue -> ms at which a post that was woken and has not asked is taken to be gone, and the next is to be woken

local waiters = {lines = {}, checks = {}}
local SILENT_AFTER_MS = 100
-- Of each post, as many clients have their exact place (the daemon sends no more), and as many messages at once find it.
local MOST_IN_ORDER = 128
local PLACE_BYTES = 16
-- Posts of one queue: each is looked at whenever something becomes ready.
local MOST_POSTS = 1024

local function number_of(line)
  local posts = 0
  for _ in pairs(line) do
    posts = posts + 1
  end
  return posts
end

-- A post has `count` clients that wait; `places` as above.
function waiters.join(name, post, count, places, exact)
  local known = #places / PLACE_BYTES
  if not (count and count >= known and known >= 1 and known <= MOST_IN_ORDER and known % 1 == 0) then
    error('ERR this is no registration of clients that wait', 0)
  end
  local line = waiters.lines[name] or {}
  if not line[post] and number_of(line) >= MOST_POSTS then -- who may call functions could name any number of them
    error('ERR too many daemons wait for one queue', 0)
  end
  waiters.lines[name] = line
  line[post] = {post = post, db = post:match('/.*') or '', count = count, since = exact, places = places,
    known = known, served = 0, woken_ms = false}
end

-- A check is of use while somebody was woken and has not asked.
local function asked(name)
  if waiters.checks[name] then
    for _, entry in pairs(waiters.lines[name] or {}) do
      if entry.woken_ms then
        return
      end
    end
    waiters.checks[name] = nil
  end
end

-- A post has no clients any more.
function waiters.leave(name, post)
  local line = waiters.lines[name]
  if line then
    line[post] = nil
    if not next(line) then
      waiters.lines[name] = nil
    end
    asked(name)
  end
end

-- Forget the posts of daemons that are gone.
function waiters.forget_gone(now)
  for name, line in pairs(waiters.lines) do
    local was_woken = false
    for post, entry in pairs(line) do
      if not volatile.is_alive(post, now) then
        was_woken = was_woken or entry.woken_ms
        waiters.leave(name, post)
      end
    end
    if was_woken and waiters.lines[name] then
      waiters.checks[name] = now -- what they were woken for is for the next in line
    end
  end
end

-- How many clients wait for `name`, in any database; those of a daemon that is gone count no more.
function waiters.count(name, now)
  local total = 0
  for post, entry in pairs(waiters.lines[name] or {}) do
    if volatile.is_alive(post, now) then
      total = total + math.max(0, entry.count - entry.served)
    end
  end
  return total
end

-- Since when the nth of a post's clients that are not served has waited, and how many messages it takes; nil if there are
-- fewer.
local function place(entry, n)
  n = n + entry.served
  if n > entry.count then
    return nil
  end
  local waited, takes = struct.unpack('<dd', entry.places, (math.min(n, entry.known) - 1) * PLACE_BYTES + 1)
  return entry.since - waited, takes
end

-- By database, the posts that may take messages: not those that were woken and did not ask.
local function present(line, now)
  local by_db = {}
  for _, entry in pairs(line) do
    local silent = entry.woken_ms and entry.woken_ms + SILENT_AFTER_MS <= now
    local posts = by_db[entry.db] or {}
    by_db[entry.db] = posts
    if not silent then
      posts[#posts + 1] = entry
    end
  end
  return by_db
end

-- Of `ready` messages, how many each of `posts` may take: its clients' that have waited longest, and what is left when all
-- have theirs.
local function shares(posts, ready)
  local of_post, clients = {}, {}
  for _, entry in ipairs(posts) do
    of_post[entry.post] = 0
    clients[entry.post] = 0
  end
  local left = ready
  while left > 0 and posts[2] and ready <= MOST_IN_ORDER do
    local first, first_since, first_takes
    for _, entry in ipairs(posts) do
      local since, takes = place(entry, clients[entry.post] + 1)
      if since and (not first or since < first_since) then
        first, first_since, first_takes = entry.post, since, takes
      end
    end
    if not first then
      break
    end
    local share = math.min(left, math.max(1, first_takes))
    of_post[first] = of_post[first] + share
    clients[first] = clients[first] + 1
    left = left - share
  end
  for _, entry in ipairs(posts) do
    of_post[entry.post] = of_post[entry.post] + left
  end
  return of_post
end

-- How many of `ready` messages the clients of `post`, which asks, may take.
function waiters.turn(name, post, ready, now)
  local line = waiters.lines[name]
  local entry = line and line[post]
  if not entry then -- not registered (yet, or again)
    return math.huge
  end
  entry.woken_ms = false
  asked(name)
  return shares(present(line, now)[entry.db], ready)[post]
end

-- The first `count` clients of a post have got something.
function waiters.served(name, post, count)
  local entry = waiters.lines[name] and waiters.lines[name][post]
  if entry then
    entry.served = entry.served + count
  end
end

-- A post is woken by its own key, which its daemon has tracked.
local function wake_post(name, entry, now)
  entry.woken_ms = entry.woken_ms or now -- who is silent stays so, whatever else it is woken for
  local key = 'valq:{' .. name .. '}:wake:' .. entry.post
  server.pcall('SET', key, '', 'PX', 1)
  server.pcall('UNLINK', key) -- its expiry would wake the daemon again, if it had it tracked again by then
end

-- A post that asks is about to be told that it may take something.
function waiters.expect(name, post, now)
  waiters.lines[name][post].woken_ms = now
end

-- `ready` messages are there, and somebody waits: wake the posts whose turn it is, if they are not woken yet.
function waiters.wake(name, ready, now)
  for _, posts in pairs(present(waiters.lines[name], now)) do
    local of_post = shares(posts, ready)
    for _, entry in ipairs(posts) do
      if of_post[entry.post] > 0 and not entry.woken_ms then
        wake_post(name, entry, now)
      end
      if entry.woken_ms and posts[2] then
        waiters.checks[name] = math.min(waiters.checks[name] or math.huge, entry.woken_ms + SILENT_AFTER_MS)
      end
    end
  end
end

-- Things are not what they were: wake all posts.
function waiters.wake_all(name, now)
  for _, entry in pairs(waiters.lines[name] or {}) do
    wake_post(name, entry, now)
  end
end

-- Move the queues at which somebody was woken and does not ask to the end of `result`, up to `last` items in all; when the
-- next of them is to be looked at.
function waiters.take_silent(now, result, last)
  local next_ms = math.huge
  for name, ms in pairs(waiters.checks) do
    if ms > now then
      next_ms = math.min(next_ms, ms)
    elseif #result < last then
      result[#result + 1] = name
      waiters.checks[name] = nil
    end
  end
  return next_ms
end
