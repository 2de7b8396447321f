-- Starting keys where there are records, see start_next.lua.

-- Without the keys whose record nobody can read.
local function readable(keys, records)
  local readable_keys, readable_records = {}, {}
  for i, key in ipairs(keys) do
    if is_readable(records[i]) then
      readable_keys[#readable_keys + 1] = key
      readable_records[#readable_records + 1] = records[i]
    else
      set_aside(key, 1, records[i])
      counts.ready = counts.ready - 1
    end
  end
  return readable_keys, readable_records
end

-- The records of popped keys; those without one are plain, and have theirs in `records`.
local function with_records(keys, records)
  local stored_, recorded, all_readable = call('HMGET', RECORDS, unpack(keys)), {}, true
  for i, key in ipairs(keys) do
    local record = stored_[i]
    if record then
      records[i] = record
      recorded[#recorded + 1] = key
      all_readable = all_readable and is_readable(record)
    end
  end
  if #recorded > 0 then call('HDEL', RECORDS, unpack(recorded)) end
  if not all_readable then keys, records = readable(keys, records) end
  for _, record in ipairs(records) do
    local attempts = attempts_at(record, 1)
    count_attempts(attempts, -1)
    count_attempts(attempts + 1, 1)
  end
  return keys, records
end
