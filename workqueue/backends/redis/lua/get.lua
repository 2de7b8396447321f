-- uses prelude
-- Everything that is stored of one key. ARGV[5] key
-- Returns: queued record, queued time if it has no record; what runs, its lease expiry; dead letter; each may be nil;
-- wall and steady time; what was set aside, its status first. Atomic: the key is seen in one place or the other, never in neither. Costs O(log n).

local key = ARGV[5]
return {
  call('HGET', RECORDS, key), call('ZSCORE', LANE .. '0', key),
  call('HGET', RUNNING, key), call('ZSCORE', LEASES, key),
  call('HGET', DEAD, key), wall, steady, call('HGET', UNREADABLE, key),
}
