-- uses prelude packed records tally lanes ranks
-- List eligible keys in order, from behind a position on.
-- ARGV[5] limit  [6] priority of the position, '' = the beginning  [7] its queued time  [8] its key
-- Returns: 1 = ask again, keys have to be made eligible first; key, queued time, record, priority.
-- Atomic: one page is the queue at one moment. Costs O(log² n + what is returned + lanes that are empty), and once what came due.

local LANES_AT_ONCE = 100
local limit, listed = tonumber(ARGV[5]), {}

local function list_lane(priority, first)
  local page = call('ZRANGE', LANE .. priority, first, first + limit - 1, 'WITHSCORES')
  for i = 1, #page, 2 do
    append(listed, 1, page[i], page[i + 1], call('HGET', RECORDS, page[i]), priority)
  end
  limit = limit - #page / 2
end

-- Those of lower priorities than the one whose score in LANES is `above`; a lane that somebody else named is none.
local function list_lanes(above)
  local skip, lanes = 0, nil
  while limit > 0 and (not lanes or #lanes > 0) do
    lanes = call('ZRANGEBYSCORE', LANES, above, '+inf', 'LIMIT', skip, LANES_AT_ONCE)
    skip = skip + #lanes
    for _, priority in ipairs(lanes) do
      if limit > 0 and string.find(priority, '^-?%d+$') and #priority < 18 then list_lane(priority, 0) end
    end
  end
end

local more = promote()
write_counts()
if more then return {1, {}} end

local priority = ARGV[6]
if priority == '' then
  list_lanes('-inf')
else
  list_lane(priority, members_before(LANE .. priority, ARGV[7], ARGV[8], true))
  list_lanes('(' .. int(-tonumber(priority)))
end
return {0, listed[1] or {}}
