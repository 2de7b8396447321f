-- uses prelude packed records rules tally lanes limits wake places
-- Re-drive (queue with attempts 0) or drop one listed dead letter, if it was not replaced.
-- ARGV[5] key  [6] the letter as listed  [7] redrive or drop
-- Returns 1, or 0 when it was replaced or is gone. Atomic: the key is never in neither place. Costs O(log n).

if kept_answer then return kept_answer end

local key, letter = ARGV[5], ARGV[6]
if call('HGET', DEAD, key) ~= letter then return 0 end
read_states({key})
local state = states[key]
state.unletter = true
if ARGV[7] == 'redrive' then put(state, redriven(unpack_dead(letter), state.entry)) end
store()
wake()
return keep(1)
