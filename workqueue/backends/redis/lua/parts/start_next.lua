-- Starting keys, in order and within all limits, for lease.lua and recover.lua. Defines, and does nothing by itself.
-- ARGV[5] prefix of the tokens  [6] owner  [7] limit  [8] concurrency  [9] lease in microseconds
-- ARGV[10] waiter that need not be woken any more, or ''

local TOKEN, OWNER = ARGV[5], ARGV[6]
local LIMIT, CONCURRENCY = tonumber(ARGV[7]), tonumber(ARGV[8])
local EXPIRY = steady + tonumber(ARGV[9])
local ORPHANS_AT_ONCE = 500
local OFFERED_BY = string.match(ARGV[3], '^(.*):offer$') -- whose announced request this is, see wait.lua
local STARTS_AT_ONCE, STARTS_IN_ONE_POP, BYTES_AT_ONCE = 1000, 100, 4 * 1024 * 1024

-- The answer is kept without payloads; what this request started and still owns is read again. An announced request may
-- have been answered long before it was sent, so that its lease begins anew.
local function rebuild(answer)
  local keys, started_ = answer[4], {}
  local running = #keys > 0 and call('HMGET', RUNNING, unpack(keys)) or {}
  for i, key in ipairs(keys) do
    local is_ours = running[i] and token_of(running[i]) == TOKEN .. i
    local _, record = unpack_running(is_ours and running[i] or '\0\0')
    started_[2 * i - 1], started_[2 * i] = key, is_ours and record
    if is_ours and OFFERED_BY then call('ZADD', LEASES, 'XX', EXPIRY, key) end
  end
  return {answer[1], answer[2], answer[3], started_, {}, {}}
end

local function answer(again, recovered, keys, started_)
  if #recovered + #keys > 0 then keep({again and 1 or 0, wall, recovered, keys}) end
  return {again and 1 or 0, wall, recovered, started_, {}, set_aside_now}
end

local function slots()
  return math.min(LIMIT, limit_for(CONCURRENCY) - call('ZCARD', LEASES))
end

local function room()
  if paused then return 0 end
  local free = slots()
  if not rate then return free end
  local saved, clock_went_back = saved_starts()
  if clock_went_back then save_starts(saved) end
  return math.min(free, math.floor(saved))
end

-- The plain record of a key without one, from its score, which says when it was queued.
local function plain_record(score)
  return 'P' .. int(whole_us(tonumber(score)))
end

-- Take up to `most` keys from the highest lane; returns keys and records, none when the queue is empty.
local pop
function pop(most, with_records)
  local priority = call('ZRANGE', LANES, 0, 0)[1]
  if not priority then return {}, {} end
  local popped, keys, records = call('ZPOPMIN', LANE .. priority, most), {}, {} -- equal times come by name
  if #popped == 0 then -- somebody else put it there
    call('ZREM', LANES, priority)
    return pop(most, with_records)
  end
  local in_range = tonumber(popped[2]) >= 0 and tonumber(popped[#popped]) <= LATEST_US -- the least and the greatest
  for i = 1, #popped / 2 do
    keys[i] = popped[2 * i - 1]
    records[i] = in_range and 'P' .. popped[2 * i] or plain_record(popped[2 * i])
  end
  if #keys < most or call('EXISTS', LANE .. priority) == 0 then call('ZREM', LANES, priority) end
  if not with_records then
    count_attempts(1, #keys)
    return keys, records
  end
  keys, records = with_records(keys, records)
  if #keys == 0 then return pop(most, with_records) end
  return keys, records
end

-- Redis searches a small hash or sorted set from its front, until a long member makes a table of it, for as long as it is
-- not empty. With a hundred keys in flight that was a third of its instructions; so, before there are many, a long member
-- comes and goes again.
local MANY, LONG = 32, string.rep('\1', 65) -- no key begins with a control character
local in_progress = 0 -- how many keys, once `lapsed_keys` has looked

-- Lua makes text of a number by way of printf: a thirtieth of what a key costs. Now it does so once for ten keys.
local DIGITS = {[0] = '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'}

-- Put popped keys in progress, after those in `all`; `started_` is what is returned of them. Returns how many bytes that is.
local function begin(keys, records, all, started_)
  local running, leases, bytes, tens = {}, {}, 0, nil
  local begun, owner, expiry = #all, string.char(#OWNER) .. OWNER, int(EXPIRY)
  for i, key in ipairs(keys) do
    local number, record, at = begun + i, records[i], 2 * i
    local unit = number % 10
    if unit == 0 or i == 1 then
      tens = number < 10 and TOKEN or TOKEN .. (number - unit) / 10
      tens = string.char(#tens + 1) .. tens
    end
    running[at - 1], running[at] = key, tens .. DIGITS[unit] .. owner .. record
    leases[at - 1], leases[at] = expiry, key
    all[number], started_[2 * number - 1], started_[2 * number] = key, key, record
    bytes = bytes + #record
  end
  local makes_tables = in_progress < MANY and in_progress + #keys >= MANY
  if makes_tables then
    call('HSET', RUNNING, LONG, LONG)
    call('ZADD', LEASES, expiry, LONG)
  end
  bulk('HSET', RUNNING, running, 2)
  bulk('ZADD', LEASES, leases, 2)
  if makes_tables then
    call('HDEL', RUNNING, LONG)
    call('ZREM', LEASES, LONG)
  end
  in_progress = in_progress + #keys
  count_owner(OWNER, #keys)
  counts.ready = counts.ready - #keys
  return bytes
end

local function start(free, with_records)
  local all, started_, bytes = {}, {}, 0
  local most = math.min(free, STARTS_AT_ONCE)
  while #all < most and bytes < BYTES_AT_ONCE do
    local keys, records = pop(math.min(most - #all, STARTS_IN_ONE_POP), with_records)
    if #keys == 0 then -- then so many are eligible, whatever was counted
      counts.ready = -ready
      break
    end
    bytes = bytes + begin(keys, records, all, started_)
  end
  return all, started_
end

-- The step, once orphans are out of the way. Where there may be records, `promote_` and `with_records` see to them.
local function lease(recovered, promote_, with_records)
  if promote_ and promote_() then
    write_counts()
    return answer(true, recovered, {}, {})
  end
  local free = room()
  local keys, started_ = {}, {}
  if free > 0 then keys, started_ = start(free, with_records) end
  if rate and #keys > 0 then save_starts(saved_starts() - #keys) end
  write_counts()
  -- An asker whom only the rate holds up sleeps until the next start is saved up. To pass the wake-up on would make idle
  -- dispatchers wake each other without end, since none of them may start what is there.
  if not (rate and #keys < LIMIT and slots() > 0 and saved_starts() < 1) then wake() end
  return answer(#keys > 0 and #keys < free and ready > 0, recovered, keys, started_)
end

-- The asker is awake: nobody need wake it for what this step leaves.
local function forget_waiter()
  if ARGV[10] ~= '' then call('ZREM', WAITERS, ARGV[10]) end
end

-- A key in progress whose lease somebody else removed would be nobody's for ever. Its owner, if it lives, renews it.
local function lease_anew()
  admit()
  for _, key in ipairs(call('HKEYS', RUNNING)) do
    call('ZADD', LEASES, 'NX', EXPIRY, key)
  end
end

-- The keys whose leases have lapsed, at most ORPHANS_AT_ONCE of them.
local function lapsed_keys()
  in_progress = call('HLEN', RUNNING)
  if in_progress > call('ZCARD', LEASES) then lease_anew() end
  return call('ZRANGEBYSCORE', LEASES, '-inf', steady, 'LIMIT', 0, ORPHANS_AT_ONCE)
end
