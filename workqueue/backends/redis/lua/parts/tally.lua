-- What is counted on the way, so that nobody ever has to scan. Changes gather here, and `write_counts` writes them.

local counts = {ready = 0, twins = 0} -- changes not written yet
local attempts_moved, owners_moved = {}, {}

local function count_attempts(attempts, by)
  if attempts > 0 then attempts_moved[attempts] = (attempts_moved[attempts] or 0) + by end
end

local function count_owner(owner, by)
  owners_moved[owner] = (owners_moved[owner] or 0) + by
end

-- Add to a count of `hash`. One that is no number, or a hash that is none, somebody else has written: it begins anew,
-- since by now the keys have moved, and to break off here would leave them in two places or in none.
local function add(hash, name, by)
  local sum = redis.pcall('HINCRBY', hash, name, by)
  if type(sum) == 'table' then
    if call('TYPE', hash).ok ~= 'hash' then call('DEL', hash) end
    sum = math.max(by, 0)
    call('HSET', hash, name, sum)
  end
  if hash == META then
    if sum < 0 then call('HSET', hash, name, 0) end
  elseif sum <= 0 then
    call('HDEL', hash, name)
  end
end

local function write_counts()
  if counts.ready ~= 0 then
    ready = math.max(ready + counts.ready, 0)
    call('HSET', META, 'ready', int(ready))
  end
  if counts.twins ~= 0 then add(META, 'twins', counts.twins) end
  counts.ready, counts.twins = 0, 0
  for attempts, by in pairs(attempts_moved) do
    if by ~= 0 then add(ATTEMPTS, attempts, by) end
  end
  for owner, by in pairs(owners_moved) do
    if by ~= 0 then add(OWNERS, owner, by) end
  end
  attempts_moved, owners_moved = {}, {}
end

local set_aside_now = {} -- keys that this script set aside, for its asker's log
