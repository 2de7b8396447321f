-- uses prelude lanes ranks
-- List the keys whose time has not come, soonest first, or dead letters, the last one first, from behind a position on.
-- ARGV[5] limit  [6] delayed or failed  [7] time of the position, '' = the beginning  [8] its key
-- Returns key, time, record. Atomic: one page is the queue at one moment. Costs O(log² n + what is returned).

local limit, listed = tonumber(ARGV[5]), {}

local function list(zset, hash, first, last, step)
  local page = last < first and {} or call('ZRANGE', zset, first, last, 'WITHSCORES')
  for i = step > 0 and 1 or #page - 1, step > 0 and #page or 1, 2 * step do
    append(listed, 1, page[i], page[i + 1], call('HGET', hash, page[i]) or '')
  end
  return listed[1] or {}
end

if ARGV[6] == 'delayed' then
  local first = call('ZCOUNT', DELAYED, '-inf', wall) -- what came due is eligible
  if ARGV[7] ~= '' then first = math.max(first, members_before(DELAYED, ARGV[7], ARGV[8], true)) end
  return list(DELAYED, RECORDS, first, first + limit - 1, 1)
end
local above = ARGV[7] == '' and call('ZCARD', FAILED) or members_before(FAILED, ARGV[7], ARGV[8], false)
return list(FAILED, DEAD, math.max(above - limit, 0), above - 1, -1)
