-- Replace the stored settings, or read them. ARGV[5] write or read  [6] concurrency or ''  [7] paused 1 or 0
-- ARGV[8] starts per second or ''. Returns concurrency, paused, starts per second; each may be nil.
-- Atomic: a lease step sees all of the old settings or all of the new. Costs O(waiting dispatchers): all look again.

local function set(field, value)
  if value == '' then call('HDEL', META, field) else call('HSET', META, field, value) end
end

if ARGV[5] == 'read' then return {stored[3], stored[4], stored[5]} end

set('concurrency', ARGV[6])
set('paused', ARGV[7])
if tonumber(ARGV[8]) ~= rate then -- a new rate begins with one second's worth of starts
  set('rate', ARGV[8])
  call('HSET', META, 'saved', string.format('%.17g', math.max(tonumber(ARGV[8]) or 0, 1)), 'at', int(wall))
end
wake_all()
return {ARGV[6], ARGV[7], ARGV[8]}
