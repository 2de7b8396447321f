-- Requeue or dead-letter orphans, make keys eligible whose time has come, then start keys in order within all limits.
-- ARGV[5] prefix of the tokens  [6] owner  [7] limit  [8] concurrency  [9] max_retry  [10] lease in microseconds
-- ARGV[11] waiter that need not be woken any more, or ''
-- ARGV[12] the error of orphans that are given up  [13...] orphan, its backoff in microseconds
-- Returns: 1 = ask again for the rest, 0 = done; wall time; recovered orphans, six values each; started keys, key and
-- packed entry as it was while queued; orphans that want a backoff first, key and attempts.
-- Atomic: what is in progress is counted and added to in one step, so that the limit holds however many ask at once,
-- and the order of the keys is that of the queue at one moment. Costs O(log n) a key started, recovered or promoted;
-- neither the backlog nor twins are looked through.

local TOKEN, OWNER = ARGV[5], ARGV[6]
local LIMIT, CONCURRENCY, MAX_RETRY = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local EXPIRY = steady + tonumber(ARGV[10])
local ORPHANS_AT_ONCE = 500
local STARTS_AT_ONCE, STARTS_IN_ONE_POP, BYTES_AT_ONCE = 1000, 100, 4 * 1024 * 1024

-- The answer is kept without payloads; what this request started and still owns is read again.
local function rebuild(answer)
  local keys, started_ = answer[4], {}
  local running = #keys > 0 and call('HMGET', RUNNING, unpack(keys)) or {}
  for i, key in ipairs(keys) do
    if running[i] and token_of(running[i]) == TOKEN .. i then
      local _, record = unpack_running(running[i])
      started_[#started_ + 1] = i
      started_[#started_ + 1] = key
      started_[#started_ + 1] = record
    end
  end
  return {answer[1], answer[2], answer[3], started_, {}}
end

if kept_answer then return rebuild(kept_answer) end

if ARGV[11] ~= '' then call('ZREM', WAITERS, ARGV[11]) end

local function answer(again, recovered, keys, started_)
  if #recovered + #keys > 0 then keep({again and 1 or 0, wall, recovered, keys}) end
  return {again and 1 or 0, wall, recovered, started_, {}}
end

-- Orphans wait as long as the asker says, who may have a rule of his own; until he has said so for all, nothing is done.
local function without_backoff(orphans)
  local planned, missing = {}, {}
  for i = 13, #ARGV, 2 do
    planned[ARGV[i]] = tonumber(ARGV[i + 1])
  end
  for _, state in ipairs(orphans) do
    state.backoff = planned[state.key]
    if not state.backoff then
      local _, record = unpack_running(state.running)
      append(missing, 1, state.key, unpack_entry(record).a + 1)
    end
  end
  return missing[1] or {}
end

local function recover(orphans)
  local recovered = {}
  for _, state in ipairs(orphans) do
    local entry, owner = end_attempt(state)
    local is_last = MAX_RETRY > 0 and entry.a >= MAX_RETRY
    if is_last then
      give_up(state, entry, ARGV[12])
    else
      requeue(state, entry, 'o', state.backoff)
    end
    append(recovered, 1, state.key, entry.a, owner, entry.p, entry.f, is_last and 1 or 0)
  end
  store()
  return recovered[1] or {}
end

local function room()
  if paused then return 0 end
  local free = math.min(LIMIT, limit_for(CONCURRENCY) - call('ZCARD', LEASES))
  if rate then
    local saved, at = tonumber(stored[6]), tonumber(stored[7])
    saved = math.min(saved + math.max(wall - at, 0) * rate / 1000000, math.max(rate, 1))
    stored[6] = saved
    free = math.min(free, math.floor(saved))
  end
  return free
end

local function spend(starts)
  local clock_went_back = rate and wall < tonumber(stored[7])
  if rate and (starts > 0 or clock_went_back) then
    call('HSET', META, 'saved', string.format('%.17g', stored[6] - starts), 'at', int(wall))
  end
end

-- Take up to `most` keys from the highest lane; returns keys and records, none when the queue is empty.
local function pop(most)
  local priority = call('ZRANGE', LANES, 0, 0)[1]
  if not priority then return {} end
  local popped, keys, times = call('ZPOPMIN', LANE .. priority, most), {}, {} -- equal times come by name
  for i = 1, #popped, 2 do
    keys[#keys + 1] = popped[i]
    times[#times + 1] = popped[i + 1]
  end
  forget_empty_lane(priority)
  local records = call('HMGET', RECORDS, unpack(keys))
  local recorded = {}
  for i, key in ipairs(keys) do
    if records[i] then recorded[#recorded + 1] = key end
    records[i] = records[i] or pack_entry(plain_entry(tonumber(times[i])))
  end
  if #recorded > 0 then call('HDEL', RECORDS, unpack(recorded)) end
  return keys, records
end

local function begin(keys, records, started_, so_far)
  local running, leases, bytes = {}, {}, 0
  for i, key in ipairs(keys) do
    local record, number = records[i], so_far + i
    local attempts = struct.unpack('>i4', record, 10)
    count_attempts(attempts, -1)
    count_attempts(attempts + 1, 1)
    append(running, 1, key, pack_running(TOKEN .. number, OWNER, record))
    append(leases, 1, EXPIRY, key)
    append(started_, 1, number, key, record)
    bytes = bytes + #record
  end
  bulk('HSET', RUNNING, running[1], 2)
  bulk('ZADD', LEASES, leases[1], 2)
  count_owner(OWNER, #keys)
  counts.ready = counts.ready - #keys
  return bytes
end

local function start(free)
  local all, started_, bytes = {}, {}, 0
  local most = math.min(free, STARTS_AT_ONCE)
  while #all < most and bytes < BYTES_AT_ONCE do
    local keys, records = pop(math.min(most - #all, STARTS_IN_ONE_POP))
    if #keys == 0 then break end
    bytes = bytes + begin(keys, records, started_, #all)
    for _, key in ipairs(keys) do
      all[#all + 1] = key
    end
  end
  return all, started_[1] or {}
end

local lapsed = call('ZRANGEBYSCORE', LEASES, '-inf', steady, 'LIMIT', 0, ORPHANS_AT_ONCE)
local recovered = {}
if #lapsed > 0 then
  read_states(lapsed)
  local missing = without_backoff(touched)
  if #missing > 0 then return {1, wall, {}, {}, missing} end
  recovered = recover(touched)
  if #lapsed == ORPHANS_AT_ONCE then return answer(true, recovered, {}, {}) end
end

if promote() then
  write_counts()
  return answer(true, recovered, {}, {})
end

local free = room()
local keys, started_ = {}, {}
if free > 0 then keys, started_ = start(free) end
spend(#keys)
write_counts()
wake()
return answer(#keys > 0 and #keys < free and ready > 0, recovered, keys, started_)
