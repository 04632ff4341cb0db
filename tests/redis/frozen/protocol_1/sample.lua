-- Before a miss is loaded: register the shapes and seed the stamps that are missing, then return the stamps.
-- KEYS: generation, fence, per table (writers, registry, table stamp), then every stamp
-- ARGV: protocol, run id, random, token (unused), lease ms, stamp ttl ms, most shapes of a registry, number of tables,
--       per table (number of shapes, then per shape (name, encoded))
-- Returns: 'ok' | 'busy' | 'fenced', generation, stamps
local lease, ttl, most, tables = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

local function stamps()
  local found = {}
  for i = 3 + 3 * tables, #KEYS do found[#found + 1] = text(KEYS[i]) end
  return found
end

if fenced() then return {'fenced', text(KEYS[1]) or '', stamps()} end
local found = generation(lease)
if fenced() then return {'fenced', found, stamps()} end

local absent, under_way, missing = {}, false, {}
for i = 3 + 3 * tables, #KEYS do
  local stamp = text(KEYS[i])
  if not stamp or not parse(stamp) then absent[#absent + 1] = KEYS[i] end
end
local at = 9
for i = 1, tables do
  local writers, registry = KEYS[3 * i], KEYS[3 * i + 1]
  under_way = busy(writers) or under_way
  local known = revision(registry)
  for _ = 1, tonumber(ARGV[at]) do
    if known == '' or redis.call('HEXISTS', registry, ARGV[at + 1]) == 0 then
      missing[#missing + 1] = {i, ARGV[at + 1], ARGV[at + 2]}
    end
    at = at + 2
  end
  at = at + 1
end
if under_way and (#missing > 0 or #absent > 0) then return {'busy', found, stamps()} end

for _, shape in ipairs(missing) do
  local registry, table_stamp = KEYS[3 * shape[1] + 1], KEYS[3 * shape[1] + 2]
  local known = revision(registry)
  if known == '' or redis.call('HLEN', registry) > most then
    -- A new registry holds under a new table stamp: whoever registered in the old one registers again.
    redis.call('DEL', registry)
    if replace(table_stamp, '', nil) > 0 then unnamed() end
  end
  redis.call('HSET', registry, '', fresh(), shape[2], shape[3])
end
for i = 1, tables do
  local registry = KEYS[3 * i + 1]
  if redis.call('PTTL', registry) < ttl then redis.call('PEXPIRE', registry, ttl) end
end
for _, key in ipairs(absent) do
  redis.call('SET', key, fresh() .. '|1|' .. string.format('%d', ttl) .. '||', 'PX', string.format('%d', ttl))
end
for i = 3 + 3 * tables, #KEYS do
  local nonce, version, lives, tokens, cause = parse(text(KEYS[i]))
  local kept, latest = alive(tokens, '')
  if tonumber(lives) < ttl or kept ~= tokens then
    store(KEYS[i], nonce, version, string.format('%d', math.max(ttl, tonumber(lives))), kept, latest, cause)
  elseif tokens == '' and redis.call('PTTL', KEYS[i]) < ttl then
    redis.call('PEXPIRE', KEYS[i], ttl)
  end
end
return {'ok', found, stamps()}
