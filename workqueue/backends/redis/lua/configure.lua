-- uses prelude limits wake
-- Replace the stored settings, or read them. ARGV[5] write or read  [6] concurrency or ''  [7] paused 1 or 0
-- ARGV[8] starts per second or ''. Returns the three joined by semicolons; when read, also when the queue was made.
-- Atomic: a lease step sees all of the old settings or all of the new. Costs O(waiting dispatchers): all look again.

if ARGV[5] == 'read' then return {stored[3] or ';;', stored[4] or ''} end

admit()
if tonumber(ARGV[8]) ~= rate then -- a new rate begins with one second's worth of starts
  save_starts(math.max(tonumber(ARGV[8]) or 0, 1))
end
local limits = table.concat({ARGV[6], ARGV[7], ARGV[8]}, ';')
call('HSET', META, 'limits', limits)
wake_all()
return limits
