-- uses prelude packed records
-- The gauges. Returns: eligible, not yet, twins, in progress, dead-lettered, microseconds that the longest-waiting
-- eligible key could have been started, attempts, owners with how many keys each, unreadable, when the queue was made.
-- Atomic: they add up. Costs O(log n + priorities, at most 128 of them + owners + different attempts).

local LANES_LOOKED_AT, KEYS_LOOKED_AT = 64, 32

-- A key that was delayed may stand before one that waits longer, hence a few keys of each lane.
local function since_in_lane(priority)
  local page, since = call('ZRANGE', LANE .. priority, 0, KEYS_LOOKED_AT - 1, 'WITHSCORES'), wall
  for i = 1, #page, 2 do
    local record, queued = call('HGET', RECORDS, page[i]), whole_us(tonumber(page[i + 1]))
    local not_before = is_readable(record) and unpack_entry(record).n or 0
    since = math.min(since, math.max(queued, not_before))
    if not_before <= queued then return since end
  end
  return since
end

local function oldest()
  local due = call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')
  local since = due[1] and math.min(whole_us(tonumber(due[2])), wall) or wall
  local lanes = call('ZRANGE', LANES, 0, LANES_LOOKED_AT - 1)
  for _, priority in ipairs(call('ZRANGE', LANES, math.max(#lanes, call('ZCARD', LANES) - LANES_LOOKED_AT), -1)) do
    lanes[#lanes + 1] = priority
  end
  for _, priority in ipairs(lanes) do
    since = math.min(since, since_in_lane(priority))
  end
  return wall - since
end

local due = call('ZCOUNT', DELAYED, '-inf', wall)
return {
  ready + due, call('ZCARD', DELAYED) - due, tonumber(call('HGET', META, 'twins') or 0) or 0, call('ZCARD', LEASES),
  call('HLEN', DEAD), oldest(), call('HKEYS', ATTEMPTS), call('HGETALL', OWNERS),
  call('HLEN', UNREADABLE), stored[4] or '',
}
