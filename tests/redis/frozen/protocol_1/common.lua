-- What all scripts share. A stamp is the string
--     nonce | version | ttl in ms | token:deadline in ms,... | cause
-- in flight while it has tokens. While it is in flight the key lives until the last deadline; else for its ttl.
-- The set of writers under way on a table is a sorted set of tokens by deadline. All times are this server's.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local made = 0

-- ARGV[3] is 48 random bits; every stamp replaced in this call appends its number.
local function fresh()
  made = made + 1
  return ARGV[3] .. string.format('%04x', made)
end

-- The string at a key; false when there is none. Bytes of another kind under our key are removed.
local function text(key)
  local found = redis.pcall('GET', key)
  if type(found) == 'table' then
    redis.call('DEL', key)
    return false
  end
  return found
end

-- Numbers longer than any of ours would make a key's life one that the server refuses: bytes that are no stamp.
local function parse(stamp)
  local nonce, version, ttl, tokens, cause = string.match(stamp, '^(%x+)|(%d+)|(%d+)|([^|]*)|(.*)$')
  if nonce and (#nonce ~= 16 or #version > 15 or #ttl > 13) then return nil end
  return nonce, version, ttl, tokens, cause
end

-- The tokens still alive, without one of them; and the latest deadline among them. No lease lasts a day.
local function alive(tokens, without)
  local kept, latest = {}, 0
  for token, deadline in string.gmatch(tokens, '([^:,]+):(%d+)') do
    deadline = tonumber(deadline)
    if deadline > now and deadline < now + 86400000 and token ~= without then
      kept[#kept + 1] = token .. ':' .. string.format('%d', deadline)
      if deadline > latest then latest = deadline end
    end
  end
  return table.concat(kept, ','), latest
end

local function store(key, nonce, version, ttl, tokens, latest, cause)
  local value = nonce .. '|' .. version .. '|' .. ttl .. '|' .. tokens .. '|' .. cause
  local life = tonumber(ttl)
  if tokens ~= '' then life = latest - now end
  redis.call('SET', key, value, 'PX', string.format('%d', math.max(life, 1)))
end

-- Replace a stamp that is there; an absent one stays absent. ARGV[4] is the writer's token: with a deadline it is
-- marked by it, without one it is released. Returns 1 if there was a stamp.
local function replace(key, cause, deadline)
  local found = text(key)
  if not found then return 0 end
  local nonce, version, ttl, tokens = parse(found)
  if not nonce then
    redis.call('DEL', key)
    return 0
  end
  local latest
  tokens, latest = alive(tokens, ARGV[4])
  if deadline then
    local mark = ARGV[4] .. ':' .. string.format('%d', deadline)
    tokens = tokens == '' and mark or (tokens .. ',' .. mark)
    latest = math.max(latest, deadline)
  end
  store(key, fresh(), string.format('%d', tonumber(version) + 1), ttl, tokens, latest, cause)
  return 1
end

-- Whether a table has writers under way.
local function busy(writers)
  local pruned = redis.pcall('ZREMRANGEBYSCORE', writers, '-inf', string.format('%d', now))
  if type(pruned) == 'table' or redis.call('PTTL', writers) == -1 then
    redis.call('DEL', writers)
    return false
  end
  return redis.call('ZCARD', writers) > 0
end

-- The revision of a table's registry of shapes: the field '' of a hash from names to shapes, random and changed with
-- every shape, so that a server that went back in time has another one. '' when there is no registry.
local function revision(registry)
  local found = redis.pcall('HGET', registry, '')
  if type(found) == 'table' then
    redis.call('DEL', registry)
    return ''
  end
  return found or ''
end

-- Whether writers of another protocol may be under way. A fence ends by itself: one that does not, or that names no
-- protocol, is none of ours.
local function fenced()
  local fence = text(KEYS[2])
  if not fence then return false end
  if string.find(fence, '^%d+$') and redis.call('PTTL', KEYS[2]) ~= -1 then return true end
  redis.call('DEL', KEYS[2])
  return false
end

-- The generation: protocol | run id of the server | nonce. ARGV[1] is our protocol, ARGV[2] the run id that this
-- connection learned. Another run id, or none: the server restarted or failed over, and what it had before is void.
-- Another protocol: its writers do not touch our stamps nor we theirs, so both stay away from the cache until KEYS[2],
-- which lasts as long as a writer may be under way, is gone.
local function generation(lease)
  local found = text(KEYS[1])
  local protocol, run
  if found then protocol, run = string.match(found, '^(%d+)|([^|]*)|') end
  if protocol == ARGV[1] and run == ARGV[2] then return found end
  if protocol and protocol ~= ARGV[1] then redis.call('SET', KEYS[2], protocol, 'PX', lease) end
  found = ARGV[1] .. '|' .. ARGV[2] .. '|' .. fresh()
  redis.call('SET', KEYS[1], found)
  redis.call('PUBLISH', KEYS[1], found)
  return found
end

-- Tell the pushed tiers of all processes that a table stamp was replaced that no announcement names:
--     1. A process serves a list without asking. The registry, which knew the list's shape, is lost.
--     2. A writer, or a reader that begins a new registry, replaces the table stamp: whoever asks knows.
--     3. The announcement names what the writer knew to touch; the list's stamps are not among it.
local function unnamed()
  redis.call('PUBLISH', KEYS[1], 'a registry was lost')
end

-- Tell the other processes, with a number by which they notice a message that they missed (none on a cluster, where
-- the counter may be on another node).
local function announce(channel, message)
  local number = redis.pcall('INCR', channel .. ':sequence')
  if type(number) == 'table' then
    redis.pcall('DEL', channel .. ':sequence')  -- bytes that are no number: the receivers see a gap
    number = redis.pcall('INCR', channel .. ':sequence')
  end
  if type(number) == 'table' then number = 0 end
  redis.call('PUBLISH', channel, string.format('%d', number) .. '|' .. message)
end
