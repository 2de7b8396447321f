-- uses prelude packed records tally lanes
-- Set a record aside that its asker could not read, or remove one that was set aside.
-- ARGV[5] key  [6] status as on the wire  [7] the record; to remove it, with its status first  [8] set or drop
-- Returns 1, or 0 when it changed meanwhile. Atomic: compared and moved in one step. Costs O(log n + priorities).

local key, status, record = ARGV[5], tonumber(ARGV[6]), ARGV[7]

if ARGV[8] == 'drop' then
  if call('HGET', UNREADABLE, key) ~= record then return 0 end
  return call('HDEL', UNREADABLE, key)
end

if (call('HGET', ({RECORDS, RUNNING, DEAD})[status], key) or '') ~= record then return 0 end
if status == 1 then
  set_aside_queued(key, record)
elseif status == 2 then
  set_aside_running(key, record)
else
  call('HDEL', DEAD, key)
  call('ZREM', FAILED, key)
  set_aside(key, status, record)
end
write_counts()
return 1
