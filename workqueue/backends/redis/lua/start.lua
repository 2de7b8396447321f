-- uses prelude packed records rules tally lanes limits wake places
-- Start one listed key, if its queued entry is unchanged and eligible.
-- ARGV[5] token  [6] owner  [7] lease in microseconds  [8] key  [9] its queued time  [10] its record, '' = none
-- Returns the wall time, or nil when the key was started, changed or dropped by somebody else.
-- Atomic: the entry is compared and moved in one step. Costs O(log n), and once what comes due meanwhile.

if kept_answer then return kept_answer end

while promote() do end
write_counts()

local key = ARGV[8]
read_states({key})
local state = states[key]
local unchanged = state.was == 'ready' and int(state.entry.q) == ARGV[9] and (state.record or '') == ARGV[10]
if not unchanged then return nil end

local entry = state.entry
put(state, nil)
store()
local token, owner = string.char(#ARGV[5]) .. ARGV[5], string.char(#ARGV[6]) .. ARGV[6]
call('HSET', RUNNING, key, token .. owner .. pack_entry(entry))
call('ZADD', LEASES, steady + tonumber(ARGV[7]), key)
count_owner(ARGV[6], 1)
count_attempts(entry.a + 1, 1)
write_counts()
return keep(wall)
