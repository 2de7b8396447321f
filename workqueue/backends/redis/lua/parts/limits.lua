-- The stored limits, as configure.lua wrote them: concurrency, paused, starts per second; '' = not limited.

-- What is malformed counts as not set, so that nobody's typo stops the queue. records.py reads them in the same way.

local HIGHEST_LIMIT = 2147483647
local concurrency_stored, paused, rate = nil, false, nil

local function limit_in(text, least)
  local limit = text and text ~= '' and string.find(text, '^[%d.]+e?[+-]?%d*$') and tonumber(text)
  return limit and limit >= least and limit <= HIGHEST_LIMIT and limit or nil
end

if stored[3] then
  local concurrency, is_paused, starts = string.match(stored[3], '^([^;]*);([^;]*);([^;]*)$')
  concurrency_stored, paused, rate = limit_in(concurrency, 1), is_paused == '1', limit_in(starts, 5e-324)
  if concurrency_stored then concurrency_stored = math.floor(concurrency_stored) end
end

local function limit_for(concurrency)
  return math.min(concurrency, concurrency_stored or concurrency)
end

-- The starts saved up by now, under a rate; the same arithmetic as throttle.py.
local function saved_starts()
  local bucket = call('HMGET', META, 'saved', 'at')
  local most, at = math.max(rate, 1), tonumber(bucket[2])
  local saved = tonumber(bucket[1])
  if not (at == at and at and saved and saved >= 0) then return most, true end -- no numbers: as a new rate begins
  return math.min(saved + math.max(wall - at, 0) * rate / 1000000, most), wall < at
end

local function save_starts(saved)
  admit()
  call('HSET', META, 'saved', string.format('%.17g', saved), 'at', int(wall))
end
