-- Phase two of a commit: replace the same stamps again, and release them.
-- KEYS and ARGV as of mark.lua; the revision of the registry is not used.
-- Returns: generation, tables that had forgotten the writer
local tables = tonumber(ARGV[8])
fenced()
local found, lost = generation(ARGV[5]), 0
local key = 3
for i = 1, tables do
  local writers, table_stamp = KEYS[key], KEYS[key + 2]
  local touched, cause = tonumber(ARGV[6 + 3 * i]), ARGV[8 + 3 * i]
  busy(writers)
  -- Not among the writers any more: the server restarted, was flushed, made room, or the lease ended. Readers did not
  -- know that we were under way and may have registered shapes that phase one did not touch.
  local forgotten = redis.call('ZREM', writers, ARGV[4]) == 0
  if forgotten then
    lost = lost + 1
    replace(table_stamp, cause, nil)
    unnamed()
  end
  for j = key + 3, key + 2 + touched do
    if not forgotten or KEYS[j] ~= table_stamp then replace(KEYS[j], cause, nil) end
  end
  -- Phase one marks the table stamp when it finds no registry.
  local stamp = text(table_stamp)
  if stamp and string.find(stamp, ARGV[4], 1, true) then
    local _, version, ttl, tokens, why = parse(stamp)
    if version then
      local kept, latest = alive(tokens, ARGV[4])
      if kept ~= tokens then store(table_stamp, fresh(), string.format('%d', tonumber(version) + 1), ttl, kept, latest, why) end
    end
  end
  key = key + 3 + touched
end
announce(ARGV[6], ARGV[7])
return {found, lost}
