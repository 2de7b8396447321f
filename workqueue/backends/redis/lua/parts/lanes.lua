-- Eligible and delayed keys.
--
-- A key's queued entry is in its lane (eligible), in DELAYED, or, while the key is in progress (a twin), in neither;
-- so nothing that starts keys ever meets a twin.

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

-- Move a record that nobody can read out of the way of the others, until an operator looks at it. `status` as on the wire.
local function set_aside(key, status, record)
  admit()
  call('HSET', UNREADABLE, key, status .. (record or ''))
  set_aside_now[#set_aside_now + 1] = key
end

-- Where it stood nothing says any more, so every lane is asked.
local function set_aside_queued(key, record)
  admit()
  call('HDEL', RECORDS, key)
  if call('ZREM', DELAYED, key) == 0 then
    local was_ready = 0
    for _, priority in ipairs(call('ZRANGE', LANES, 0, -1)) do
      was_ready = was_ready + call('ZREM', LANE .. priority, key)
      forget_empty_lane(priority)
    end
    counts.ready = counts.ready - was_ready
    if was_ready == 0 and call('HEXISTS', RUNNING, key) == 1 then counts.twins = counts.twins - 1 end
  end
  set_aside(key, 1, record)
end

-- Its twin is an ordinary queued key from now on: as if delayed until now, so that `promote` finds its lane.
local function set_aside_running(key, running)
  call('HDEL', RUNNING, key)
  call('ZREM', LEASES, key)
  local twin = call('HGET', RECORDS, key)
  if twin then
    counts.twins = counts.twins - 1
    call('ZADD', DELAYED, is_readable(twin) and unpack_entry(twin).n or 0, key)
  end
  set_aside(key, 2, running)
end

local PROMOTED_AT_ONCE = 1000

-- Make keys eligible whose not-before has passed, at most PROMOTED_AT_ONCE; returns whether more are left
local function promote()
  local due = call('ZRANGEBYSCORE', DELAYED, '-inf', wall, 'LIMIT', 0, PROMOTED_AT_ONCE)
  if #due == 0 then return false end
  local records, lanes = call('HMGET', RECORDS, unpack(due)), {}
  local set_aside_before = #set_aside_now
  for i, key in ipairs(due) do
    if is_readable(records[i]) then
      local entry = unpack_entry(records[i])
      append(lanes, int(entry.p), entry.q, key)
    else
      set_aside_queued(key, records[i])
    end
  end
  call('ZREM', DELAYED, unpack(due))
  for priority, pairs_ in pairs(lanes) do fill_lane(priority, pairs_) end
  counts.ready = counts.ready + #due - (#set_aside_now - set_aside_before)
  return #due == PROMOTED_AT_ONCE
end
