-- Phase one of a commit: replace the touched stamps and mark them in flight.
-- KEYS: generation, fence, per table (writers, registry, table stamp, touched stamps)
-- ARGV: protocol, run id, random, token, lease ms, channel, message, number of tables,
--       per table (number of touched stamps, revision of the registry that the writer looked at, cause)
-- Returns: 'ok', generation, stamps replaced per table; or 'again', then per table the registry (revision first)
local lease, tables = tonumber(ARGV[5]), tonumber(ARGV[8])
local again = false
local key = 3
for i = 1, tables do
  if revision(KEYS[key + 1]) ~= ARGV[7 + 3 * i] then again = true end
  key = key + 3 + tonumber(ARGV[6 + 3 * i])
end
if again then
  local answer = {'again'}
  key = 3
  for i = 1, tables do
    local known = revision(KEYS[key + 1])
    local registry = known == '' and {} or redis.call('HGETALL', KEYS[key + 1])
    table.insert(registry, 1, known)
    answer[#answer + 1] = registry
    key = key + 3 + tonumber(ARGV[6 + 3 * i])
  end
  return answer
end

local answer = {'ok', generation(ARGV[5])}
local deadline = now + lease
key = 3
for i = 1, tables do
  local writers, table_stamp = KEYS[key], KEYS[key + 2]
  local touched, cause = tonumber(ARGV[6 + 3 * i]), ARGV[8 + 3 * i]
  busy(writers)
  redis.call('ZADD', writers, string.format('%d', deadline), ARGV[4])
  if redis.call('PTTL', writers) < lease then redis.call('PEXPIRE', writers, lease) end
  local count = 0
  -- Nobody may have registered, or the registry was lost: then nobody can say which shapes there are.
  if ARGV[7 + 3 * i] == '' then
    count = replace(table_stamp, cause, deadline)
    if count > 0 then unnamed() end
  end
  for j = key + 3, key + 2 + touched do
    if ARGV[7 + 3 * i] ~= '' or KEYS[j] ~= table_stamp then count = count + replace(KEYS[j], cause, deadline) end
  end
  answer[#answer + 1] = count
  key = key + 3 + touched
end
announce(ARGV[6], ARGV[7])
return answer
