-- uses prelude
-- List what is in progress or set aside, for an asker who sorts it by name. ARGV[5] running or unreadable  [6…] keys, none = all
-- Returns wall and steady time; without keys the name of each, else of each key what is stored, its lease expiry, and
-- the record of its twin. Atomic: of one moment. Costs O(what is there), or O(log n + what is returned).

local hash = ARGV[5] == 'running' and RUNNING or UNREADABLE
if #ARGV == 5 then return {wall, steady, call('HKEYS', hash)} end

local listed = {}
for i = 6, #ARGV do
  local at = #listed
  listed[at + 1] = call('HGET', hash, ARGV[i])
  listed[at + 2] = call('ZSCORE', LEASES, ARGV[i]) or '0'
  listed[at + 3] = call('HGET', RECORDS, ARGV[i])
end
return {wall, steady, listed}
