-- uses prelude packed records tally lanes
-- List keys in progress with their twins, and the next eligible keys; neither payloads nor lists are bounded here, so
-- the asker pages. ARGV[5] cursor over keys in progress, '' = leave them out  [6] eligible keys to skip  [7] limit
-- Returns: 1 = ask again, keys have to be made eligible first; wall time; steady time; next cursor; in progress: key, running,
-- lease expiry, record of the twin; eligible: key, queued time, record; set aside: key, status and record.
-- Atomic: one page is the queue at one moment. Costs O(log n + what is returned), and once what came due.

local RUNNING_AT_ONCE, UNREADABLE_AT_ONCE = 200, 1000

local function list_running(listed)
  local page = call('HSCAN', RUNNING, ARGV[5], 'COUNT', RUNNING_AT_ONCE)
  for i = 1, #page[2], 2 do
    local key = page[2][i]
    local expiry, twin = call('ZSCORE', LEASES, key) or '0', call('HGET', RECORDS, key)
    append(listed, 1, key, page[2][i + 1], expiry, twin)
  end
  return page[1]
end

local function list_lane(priority, skip, limit, listed)
  local page = call('ZRANGE', LANE .. priority, skip, skip + limit - 1, 'WITHSCORES')
  for i = 1, #page, 2 do
    append(listed, 1, page[i], page[i + 1], call('HGET', RECORDS, page[i]))
  end
  return #page / 2
end

local function list_eligible(listed)
  local skip, limit = tonumber(ARGV[6]), tonumber(ARGV[7])
  for _, priority in ipairs(limit > 0 and call('ZRANGE', LANES, 0, -1) or {}) do
    local size = call('ZCARD', LANE .. priority)
    if skip < size then
      limit = limit - list_lane(priority, skip, limit, listed)
      if limit <= 0 then return end
    end
    skip = math.max(skip - size, 0)
  end
end

local more = promote()
write_counts()
if more then return {1, wall, 0, '', {}, {}, {}} end

local running, eligible = {}, {}
local cursor = ARGV[5] ~= '' and list_running(running) or '0'
list_eligible(eligible)
local aside = ARGV[5] == '0' and call('HSCAN', UNREADABLE, 0, 'COUNT', UNREADABLE_AT_ONCE)[2] or {}
return {0, wall, steady, cursor, running[1] or {}, eligible[1] or {}, aside}
