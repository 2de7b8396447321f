-- The stored limits, as configure.lua wrote them: concurrency, paused, starts per second; '' = not limited.

local concurrency_stored, paused, rate = string.match(stored[3] or ';;', '^(.-);(.-);(.-)$')
concurrency_stored, paused, rate = tonumber(concurrency_stored), paused == '1', tonumber(rate)

local function limit_for(concurrency)
  return math.min(concurrency, concurrency_stored or concurrency)
end

-- The starts saved up by now, under a rate; the same arithmetic as throttle.py.
local function saved_starts()
  local bucket = call('HMGET', META, 'saved', 'at')
  local gained = math.max(wall - tonumber(bucket[2]), 0) * rate / 1000000
  return math.min(tonumber(bucket[1]) + gained, math.max(rate, 1)), wall < tonumber(bucket[2])
end

local function save_starts(saved)
  admit()
  call('HSET', META, 'saved', string.format('%.17g', saved), 'at', int(wall))
end
