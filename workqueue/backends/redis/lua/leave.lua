-- uses prelude limits wake
-- A dispatcher that slept goes away: if it was woken for a key already, another one is woken in its place.
-- ARGV[5] waiter. Atomic: the wake-up is its own or passed on, never lost. Costs O(log n).

if call('ZREM', WAITERS, ARGV[5]) == 0 then wake() end
return 1
