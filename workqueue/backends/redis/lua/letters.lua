-- uses prelude lanes
-- List dead letters in the order in which they failed. ARGV[5] failed time after which to go on  [6] limit
-- [7] failed time up to which to list, '+inf' = all
-- Returns the failed time of the last one, '' = none are left; key, letter. A page ends with all that failed in its last
-- microsecond, so that none is skipped. Atomic: one page at one moment. Costs O(log n + what is returned).

local page = call('ZRANGEBYSCORE', FAILED, '(' .. ARGV[5], ARGV[7], 'WITHSCORES', 'LIMIT', 0, ARGV[6])
if #page == 0 then return {'', {}} end
local last = page[#page]
local keys = call('ZRANGEBYSCORE', FAILED, '(' .. ARGV[5], last)
local letters = {}
for _, key in ipairs(keys) do
  append(letters, 1, key, call('HGET', DEAD, key) or '')
end
return {last, letters[1] or {}}
