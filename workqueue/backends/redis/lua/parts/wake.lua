-- Waking dispatchers that sleep; to be called when everything is written.

local delayed_from = LATEST_US + 1 -- the earliest not-before that this script stored

-- Wake everybody who sleeps: what they wait for has changed.
local function wake_all()
  for _, waiter in ipairs(call('ZRANGE', WAITERS, 0, -1)) do
    call('PUBLISH', WAKE .. waiter, '')
  end
  call('DEL', WAITERS)
end

-- Wake one dispatcher if there is something that it could start: the one that allows itself most. It passes the wake-up
-- on when it leaves something (`lease` ends with this), so a thousand idle dispatchers are not all woken for one key.
-- A waiter whose process died has no subscription any more; the next one is tried.
--
-- `start_for`, if given, is asked for what the wake-up of a waiter brings along, and for what is to be done if he hears it.
local function wake(start_for)
  if ready == 0 and delayed_from > LATEST_US then return end
  local waiter = call('ZREVRANGE', WAITERS, 0, 0, 'WITHSCORES')
  if waiter[1] and delayed_from <= LATEST_US then
    local head = call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')
    if head[1] and tonumber(head[2]) >= delayed_from then return wake_all() end -- they sleep until a later one
  end
  while waiter[1] and not paused and ready > 0 do
    if call('ZCARD', LEASES) >= limit_for(tonumber(waiter[2])) then return end
    call('ZREM', WAITERS, waiter[1])
    local brought, start = '', nil
    if start_for then brought, start = start_for(waiter[1]) end
    if call('PUBLISH', WAKE .. waiter[1], brought) > 0 then return start and start() end
    waiter = call('ZREVRANGE', WAITERS, 0, 0, 'WITHSCORES')
  end
end
