-- Eligible and delayed keys, and what is counted on the way so that nobody ever has to scan.
--
-- A key's queued entry is in its lane (eligible), in DELAYED, or, while the key is in progress (a twin), in neither;
-- so nothing that starts keys ever meets a twin.

local counts = {ready = 0, twins = 0} -- changes not written yet
local attempts_moved, owners_moved = {}, {}

local function count_attempts(attempts, by)
  if attempts > 0 then attempts_moved[attempts] = (attempts_moved[attempts] or 0) + by end
end

local function count_start(attempts)
  count_attempts(attempts, -1)
  count_attempts(attempts + 1, 1)
end

local function count_owner(owner, by)
  owners_moved[owner] = (owners_moved[owner] or 0) + by
end

local function append(lists, name, ...)
  local list = lists[name]
  if not list then
    list = {}
    lists[name] = list
  end
  for i = 1, select('#', ...) do
    list[#list + 1] = (select(i, ...))
  end
end

-- Add (queued time, key) pairs to a priority's lane.
local function fill_lane(priority, pairs_)
  bulk('ZADD', LANE .. priority, pairs_, 2)
  call('ZADD', LANES, -tonumber(priority), priority)
end

local function forget_empty_lane(priority)
  if call('EXISTS', LANE .. priority) == 0 then call('ZREM', LANES, priority) end
end

local function write_counts()
  for name, by in pairs(counts) do
    if by ~= 0 then call('HINCRBY', META, name, by) end
  end
  ready = ready + counts.ready
  counts.ready, counts.twins = 0, 0
  for attempts, by in pairs(attempts_moved) do
    if by ~= 0 and call('HINCRBY', ATTEMPTS, attempts, by) == 0 then call('HDEL', ATTEMPTS, attempts) end
  end
  for owner, by in pairs(owners_moved) do
    if by ~= 0 and call('HINCRBY', OWNERS, owner, by) == 0 then call('HDEL', OWNERS, owner) end
  end
  attempts_moved, owners_moved = {}, {}
end

local PROMOTED_AT_ONCE = 1000

-- Make keys eligible whose not-before has passed, so many at a time; returns whether more are left
local function promote()
  local due = call('ZRANGEBYSCORE', DELAYED, '-inf', wall, 'LIMIT', 0, PROMOTED_AT_ONCE)
  if #due == 0 then return false end
  local records, lanes = call('HMGET', RECORDS, unpack(due)), {}
  for i, key in ipairs(due) do
    local _, p, _, q = struct.unpack(ENTRY, records[i])
    append(lanes, int(p), q, key)
  end
  call('ZREM', DELAYED, unpack(due))
  for priority, pairs_ in pairs(lanes) do fill_lane(priority, pairs_) end
  counts.ready = counts.ready + #due
  return #due == PROMOTED_AT_ONCE
end
