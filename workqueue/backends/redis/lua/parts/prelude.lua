-- What every script begins with: the names of a queue's keys, the time, and the answers kept for a second asking.
--
-- Why a script is atomic: Redis runs one script at a time and replicates and persists what it wrote as one transaction.
-- Why it is all or nothing: it reads and decides first; the first write may be refused (out of memory, a replica, too
-- few replicas), the following ones may not.
--
-- KEYS[1]  {wq:NAME}:meta, from which the other names are made; the braces keep them all in one slot of a cluster
-- KEYS[2]  a key that never exists. While the slot is being resharded, keys that moved look missing, and a script that
--          met one would break off half-way; a missing declared key makes the node refuse the whole script instead.
-- ARGV[1]  wall time in microseconds, '' = the server's     ARGV[2]  steady time likewise
-- ARGV[3]  who asks, for the kept answer, '' = none is kept     ARGV[4]  the number of this request, growing

local LAYOUT = 1
local LATEST_US = 9007199254740991
local call = redis.call

local META = KEYS[1]                -- hash: layout version, when it was made, stored limits, counters
local ROOT = string.sub(META, 1, -5)
local LANES = ROOT .. 'lanes'       -- zset of the priorities that have eligible keys, highest first
local LANE = ROOT .. 'lane:'        -- one zset a priority: eligible keys by queued time; equal times order by name
local DELAYED = ROOT .. 'delayed'   -- zset of keys by not-before
local RECORDS = ROOT .. 'records'   -- hash of packed queued entries; a plain one (see records.lua) has none while eligible
local RUNNING = ROOT .. 'running'   -- hash of in-progress keys: token, owner and the packed entry that was started
local LEASES = ROOT .. 'leases'     -- zset of in-progress keys by lease expiry
local DEAD = ROOT .. 'dead'         -- hash of packed dead letters
local FAILED = ROOT .. 'failed'     -- zset of dead-lettered keys by failed time
local OWNERS = ROOT .. 'owners'     -- hash: owner -> its keys in progress
local ATTEMPTS = ROOT .. 'attempts' -- hash: attempts -> number of queued and in-progress keys with them; 0 is left out
local UNREADABLE = ROOT .. 'unreadable' -- hash: keys set aside -> status (1 queued, 2 in progress, 3 dead), then the record
local WAITERS = ROOT .. 'waiters'   -- zset: dispatchers that sleep, by the concurrency they ask for
local WAKE = ROOT .. 'wake:'        -- one channel a waiter
local OFFER = ROOT .. 'offer:'       -- for a waiter: the lease request that it will send when it is awake
local ANSWER = ROOT .. 'answer:' .. ARGV[3]
local ANSWER_KEPT_MS = 60000
local REQUEST = tonumber(ARGV[4])

-- To be called before the first write of a script that a full Redis must not refuse. A script is refused as a whole at its
-- first write, if that may grow; a deletion never is, so one of nothing goes first.
local function admit()
  call('HDEL', META, '')
end

local stored = call('HMGET', META, 'layout', 'ready', 'limits', 'born')
local layout = tonumber(stored[1] or LAYOUT)
if not layout or layout > LAYOUT then
  return redis.error_reply('WQLAYOUT ' .. (layout or 'unknown'))
end

-- How many keys are eligible, and how many are twins, by looking: for a META that somebody else removed or changed.
local function recount()
  local eligible, twins = 0, 0
  for _, priority in ipairs(call('ZRANGE', LANES, 0, -1)) do
    eligible = eligible + call('ZCARD', LANE .. priority)
  end
  for _, key in ipairs(call('HKEYS', RUNNING)) do
    twins = twins + call('HEXISTS', RECORDS, key)
  end
  admit()
  call('HSET', META, 'ready', eligible, 'twins', twins)
  return tostring(eligible)
end

if not stored[1] then
  if stored[4] or call('EXISTS', LANES, DELAYED, RUNNING, DEAD) > 0 then -- only META was removed
    stored[2] = recount()
  else
    local now = call('TIME')
    stored[4] = now[1] .. '.' .. now[2] -- differs from that of a queue which stood here before, and was flushed
  end
  call('HSET', META, 'layout', LAYOUT, 'born', stored[4] or '')
end
if stored[2] and not string.find(stored[2], '^%d+$') or #(stored[2] or '') > 15 then stored[2] = recount() end
local ready = tonumber(stored[2] or 0) -- how many keys are eligible

-- The answer that this request got already, when its asker lost it on the way; else nil.
local kept_answer = nil
if ARGV[3] ~= '' then
  local kept = call('GET', ANSWER)
  local last = kept and struct.unpack('>i8', kept) or -1
  if last > REQUEST then -- a copy left over in a dead connection; its asker has moved on
    return redis.error_reply('WQSTALE')
  elseif last == REQUEST then
    kept_answer = cmsgpack.unpack(string.sub(kept, 9))
    call('PEXPIRE', ANSWER, ANSWER_KEPT_MS) -- also a write, for WAIT to wait for
  end
end

-- Remember `answer` for a second asking, and return it. Comes last, since it must not be a script's first write.
local function keep_for(asker, request, answer)
  call('SET', ROOT .. 'answer:' .. asker, struct.pack('>i8', request) .. cmsgpack.pack(answer), 'PX', ANSWER_KEPT_MS)
  return answer
end

local function keep(answer)
  return keep_for(ARGV[3], REQUEST, answer)
end

local wall, steady = tonumber(ARGV[1]), tonumber(ARGV[2])
if not wall then
  local time = call('TIME')
  wall = time[1] * 1000000 + time[2]
  steady = wall
end

-- Whole numbers as text; Lua's own conversion would round them to 14 digits.
local function int(number)
  return string.format('%.0f', number)
end

-- One command over any number of arguments; Lua can pass only some thousands at once. `stride` keeps pairs together.
local function bulk(command, key, arguments, stride)
  local most = 2000 * (stride or 1)
  for first = 1, #arguments, most do
    call(command, key, unpack(arguments, first, math.min(first + most - 1, #arguments)))
  end
end

-- What `hash` has of these keys. Mostly it is not there at all: to be answered that once costs less than for each key.
local function read(hash, keys)
  if #keys > 1 and call('EXISTS', hash) == 0 then return {} end
  return call('HMGET', hash, unpack(keys))
end
