-- waiters: the clients that wait for a queue, at whichever daemon, and whose turn it is.
-- requires: volatile
--
-- A post is a daemon's clients that wait in one database: 'daemon/database'.  A function does not know in which database
-- it runs: it wakes posts of every one, those of another find nothing and register again.
--
-- lines   queue -> post -> {db, count: clients that wait; since: exact ms of the registration; waited: packed, for how many
--         ms each of the first `known` of them had waited by then; served: how many of them got something since;
--         woken_ms: when the post was woken, false when it has asked since}
-- checks  queue -> ms at which a post that was woken and has not asked is taken to be gone, and the next is to be woken

local waiters = {lines = {}, checks = {}}
local SILENT_AFTER_MS = 100
-- Of each post, as many clients have their exact place (the daemon sends no more), and as many messages at once find it.
local MOST_IN_ORDER = 128

-- A post has `count` clients that wait; `waited` as above.
function waiters.join(name, post, count, waited, exact)
  waiters.lines[name] = waiters.lines[name] or {}
  waiters.lines[name][post] = {post = post, db = post:match('/.*') or '', count = count, since = exact, waited = waited,
    known = #waited / 8, served = 0, woken_ms = false}
end

-- A check is of use while somebody was woken and has not asked.
local function asked(name)
  if waiters.checks[name] then
    for _, at in pairs(waiters.lines[name] or {}) do
      if at.woken_ms then
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
function waiters.bury(now)
  for name, line in pairs(waiters.lines) do
    for post in pairs(line) do
      if not volatile.is_alive(post, now) then
        waiters.leave(name, post)
      end
    end
  end
end

local function unserved(at)
  return math.max(0, at.count - at.served)
end

-- How many clients wait for `name`, in any database; those of a daemon that is gone count no more.
function waiters.count(name, now)
  local total = 0
  for post, at in pairs(waiters.lines[name] or {}) do
    if volatile.is_alive(post, now) then
      total = total + unserved(at)
    end
  end
  return total
end

-- Since when the nth of a post's clients that is not served has waited; nil if there are fewer.
local function nth_since(at, n)
  n = n + at.served
  return n <= at.count and at.since - struct.unpack('<d', at.waited, math.min(n, at.known) * 8 - 7) or nil
end

-- The posts of one database that may take messages: not those that were woken and did not ask, unless it is `asking`.
local function present(line, db, now, asking)
  local posts = {}
  for post, at in pairs(line) do
    local silent = at.woken_ms and at.woken_ms + SILENT_AFTER_MS <= now
    if at.db == db and (post == asking or not silent) then
      posts[#posts + 1] = at
    end
  end
  return posts
end

-- Of `ready` messages, how many each of `posts` is to take: those whose clients have waited longest.
local function shares(posts, ready)
  local of_post = {}
  local clients = 0
  for _, at in ipairs(posts) do
    of_post[at.post] = 0
    clients = clients + unserved(at)
  end
  if #posts == 1 or ready >= clients or ready > MOST_IN_ORDER then
    for _, at in ipairs(posts) do
      of_post[at.post] = ready > 0 and math.huge or 0
    end
    return of_post
  end
  for _ = 1, ready do
    local first, first_since
    for _, at in ipairs(posts) do
      local since = nth_since(at, of_post[at.post] + 1)
      if since and (not first or since < first_since) then
        first, first_since = at.post, since
      end
    end
    of_post[first] = of_post[first] + 1
  end
  return of_post
end

-- How many clients of `post`, which asks, may be served of `ready` messages.
function waiters.turn(name, post, ready, now)
  local line = waiters.lines[name]
  local at = line and line[post]
  if not at then -- not registered (yet, or again)
    return math.huge
  end
  at.woken_ms = false
  asked(name)
  return shares(present(line, at.db, now, post), ready)[post]
end

-- The first `count` clients of a post have got something.
function waiters.served(name, post, count)
  local at = waiters.lines[name] and waiters.lines[name][post]
  if at then
    at.served = at.served + count
  end
end

-- A post is woken by its own key, which its daemon has tracked.
local function wake_post(name, at, now)
  at.woken_ms = now
  local key = 'valq:{' .. name .. '}:wake:' .. at.post
  server.pcall('SET', key, '', 'PX', 1)
  server.pcall('UNLINK', key) -- its expiry would wake the daemon again, if it had it tracked again by then
end

-- A post that asks is about to be told that it may take something.
function waiters.expect(name, post, now)
  waiters.lines[name][post].woken_ms = now
end

-- `ready` messages are there: wake the posts whose turn it is, if they are not woken yet.
function waiters.wake(name, ready, now)
  local line = waiters.lines[name]
  local done = {}
  for _, some in pairs(line or {}) do
    if not done[some.db] then
      done[some.db] = true
      local posts = present(line, some.db, now)
      local of_post = shares(posts, ready)
      for _, at in ipairs(posts) do
        if of_post[at.post] > 0 and not at.woken_ms then
          wake_post(name, at, now)
        end
        if at.woken_ms and posts[2] then
          waiters.checks[name] = math.min(waiters.checks[name] or math.huge, at.woken_ms + SILENT_AFTER_MS)
        end
      end
    end
  end
end

-- Things are not what they were: wake all posts.
function waiters.wake_all(name, now)
  for _, at in pairs(waiters.lines[name] or {}) do
    wake_post(name, at, now)
  end
end
