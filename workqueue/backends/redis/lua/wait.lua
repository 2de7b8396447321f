-- uses prelude packed records tally lanes limits
-- Say how long a dispatcher may sleep, and remember that it does.
-- ARGV[5] waiter  [6] concurrency
-- ARGV[7] number of the lease request that he sends when awake, '' = of none  [8] its tokens' prefix  [9] owner  [10] lease
-- Returns the steady time, and microseconds until a lease step may find something, 0 = now, -1 = not before somebody wakes
-- the waiter.
-- Atomic: a key that is queued after the look finds the waiter registered, so no wake-up is lost. Costs O(log n).

-- Asked again, since the answer was lost; by now the announced request has been answered, and must not be once more.
if kept_answer then return {steady, 0} end

local CONCURRENCY = tonumber(ARGV[6])
local OFFER_KEPT_MS = 600000 -- who sleeps for longer is woken as if there were none

local function until_due()
  local head = call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')
  return head[1] and tonumber(head[2]) - wall
end

local function until_start()
  -- Whether there is room now or not: there may be by then, and who makes it wakes nobody for a key that is not due.
  if ready == 0 then return until_due() end
  if call('ZCARD', LEASES) >= limit_for(CONCURRENCY) then return nil end
  if not rate then return 0 end
  local saved = saved_starts()
  return saved >= 1 and 0 or math.floor((1 - saved) * 1000000 / rate) + 1
end

promote()
write_counts()

local lapse = call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')
local wait = lapse[1] and tonumber(lapse[2]) - steady
if not paused then
  local start = until_start()
  wait = wait and start and math.min(wait, start) or wait or start
end
if wait and wait <= 0 then return {steady, 0} end
admit()
call('ZADD', WAITERS, 'GT', CONCURRENCY, ARGV[5]) -- several may sleep under one name
if ARGV[7] ~= '' then
  local offer = struct.pack('>i8i8B', tonumber(ARGV[7]), tonumber(ARGV[10]), #ARGV[8]) .. ARGV[8] .. ARGV[9]
  call('SET', OFFER .. ARGV[5], offer, 'PX', OFFER_KEPT_MS)
end
return {steady, wait or -1}
