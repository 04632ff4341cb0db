-- Store an entry, unless a stamp that it was filled under has been replaced since, or is in flight: it could never be
-- hit, and must not displace one that can.
-- KEYS: generation, fence (unused), entry, then the stamps that lie with it
-- ARGV: protocol, run id, random, token, lease ms (all unused), entry, ttl ms, then the nonce of each stamp
-- Returns: 'stored' | 'fenced'
for i = 4, #KEYS do
  local stamp = text(KEYS[i])
  local nonce, _, _, tokens
  if stamp then nonce, _, _, tokens = parse(stamp) end
  if nonce ~= ARGV[4 + i] or alive(tokens, '') ~= '' then return 'fenced' end
end
redis.call('SET', KEYS[3], ARGV[6], 'PX', ARGV[7])
return 'stored'
