-- uses prelude lanes
-- List the keys whose time has not come, soonest first. ARGV[5] keys to skip  [6] limit
-- Returns key, record. Atomic: one page is the queue at one moment. Costs O(log n + what is returned).

local first = call('ZCOUNT', DELAYED, '-inf', wall) + tonumber(ARGV[5]) -- what came due is eligible
local keys, listed = call('ZRANGE', DELAYED, first, first + tonumber(ARGV[6]) - 1), {}
for _, key in ipairs(keys) do
  append(listed, 1, key, call('HGET', RECORDS, key))
end
return listed[1] or {}
