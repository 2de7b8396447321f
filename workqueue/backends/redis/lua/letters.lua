-- uses prelude lanes
-- List dead letters in the order in which they failed, but those from since the listing began.
-- ARGV[5] failed time after which to go on  [6] limit  [7] when the listing began
-- Returns the failed time of the last one, '' = none are left; key, letter. A page ends with all that failed in its last
-- microsecond, so that none is skipped. One from the future is from before the clock was set back, and is listed.
-- Atomic: one page at one moment. Costs O(log n + what is returned).

local page = call('ZRANGEBYSCORE', FAILED, '(' .. ARGV[5], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[6])
if #page == 0 then return {'', {}} end
local last, began = page[#page], tonumber(ARGV[7])
local scored = call('ZRANGEBYSCORE', FAILED, '(' .. ARGV[5], last, 'WITHSCORES')
local letters = {}
for i = 1, #scored, 2 do
  local failed = tonumber(scored[i + 1])
  if failed <= began or failed > wall then
    append(letters, 1, scored[i], call('HGET', DEAD, scored[i]) or '')
  end
end
return {last, letters[1] or {}}
