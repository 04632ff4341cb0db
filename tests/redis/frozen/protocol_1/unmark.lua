-- After a rollback: release what phase one marked. What it replaced stays replaced.
-- KEYS and ARGV as of mark.lua; causes and revisions are not used.
local tables = tonumber(ARGV[8])
local function release(key)
  local found = text(key)
  if not found then return end
  local nonce, version, ttl, tokens, cause = parse(found)
  if not nonce then return end
  local kept, latest = alive(tokens, ARGV[4])
  if kept ~= tokens then store(key, nonce, version, ttl, kept, latest, cause) end
end
local key = 3
for i = 1, tables do
  local touched = tonumber(ARGV[6 + 3 * i])
  busy(KEYS[key])
  redis.call('ZREM', KEYS[key], ARGV[4])
  for j = key + 2, key + 2 + touched do release(KEYS[j]) end
  key = key + 3 + touched
end
return 1
