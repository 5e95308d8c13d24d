#!lua name=penstock_decisions_1
-- The decision store inside the server. All keys of a tenant's decisions are in one slot of a cluster, so
-- that a decision and its place in the outbox are kept together or not at all.

-- keys: the outbox, its counter, the decisions. args: id and value of each.
-- Returns for each what stands, and whether this call made it.
local function put(keys, args)
  local answers = {}
  for i = 1, #args, 2 do
    local key = keys[(i + 1) / 2 + 2]
    local standing = redis.call('GET', key)
    if standing then
      answers[#answers + 1] = {standing, 0}
    else
      redis.call('SET', key, args[i + 1])
      redis.call('ZADD', keys[1], redis.call('INCR', keys[2]), args[i])
      answers[#answers + 1] = {args[i + 1], 1}
    end
  end
  return answers
end

-- Instants are whole numbers, and Lua would write great ones with an exponent.
local function whole(number) return string.format('%.0f', number) end

-- How many of a cap are held at an instant, and whether the token is among them.
local function held(key, token, now)
  local count = redis.call('ZCOUNT', key, '(' .. now, '+inf')
  local standing = redis.call('ZSCORE', key, token)
  return count, standing and tonumber(standing) > tonumber(now)
end

-- keys: a cap of a recipient, the caps that the token holds. args: token, until, now, limit, kept.
-- Times to live are spans: the server's clock is not ours.
local function reserve(keys, args)
  local now, kept = tonumber(args[3]), tonumber(args[5])
  local count, mine = held(keys[1], args[1], args[3])
  if mine then return 1 end
  if count >= tonumber(args[4]) then return 0 end
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', '(' .. whole(now - kept))
  redis.call('ZADD', keys[1], args[2], args[1])
  redis.call('SADD', keys[2], keys[1])
  local last = tonumber(redis.call('ZRANGE', keys[1], -1, -1, 'WITHSCORES')[2])
  redis.call('PEXPIRE', keys[1], whole(last - now + kept))
  redis.call('PEXPIRE', keys[2], whole(tonumber(args[2]) - now + kept))
  return 1
end

-- keys: a cap of a recipient. args: token, now, limit.
local function has_room(keys, args)
  local count, mine = held(keys[1], args[1], args[2])
  if mine or count < tonumber(args[3]) then return 1 end
  return 0
end

local function live_longer(key, span)
  local left = redis.call('PTTL', key)
  if span > 0 and left > 0 then redis.call('PEXPIRE', key, whole(left + span)) end
end

-- keys: the caps that the token holds, and each of them. args: token, until.
local function confirm(keys, args)
  local longest = 0
  for i = 2, #keys do
    local standing = redis.call('ZSCORE', keys[i], args[1])
    if standing then
      local span = tonumber(args[2]) - tonumber(standing)
      redis.call('ZADD', keys[i], args[2], args[1])
      live_longer(keys[i], span)
      longest = math.max(longest, span)
    end
  end
  live_longer(keys[1], longest)
  return 1
end

-- keys: the sends of a campaign. args: whose, the state, the state that it may follow or nothing.
-- Returns what stands, or nothing if this call recorded it.
local function start(keys, args)
  local standing = redis.call('HGET', keys[1], args[1])
  if standing and standing ~= args[3] then return standing end
  redis.call('HSET', keys[1], args[1], args[2])
  return false
end

local function digest() return '@DIGEST@' end

redis.register_function('penstock_decisions_1_put', put)
redis.register_function('penstock_decisions_1_reserve', reserve)
redis.register_function{function_name='penstock_decisions_1_has_room', callback=has_room, flags={'no-writes'}}
redis.register_function('penstock_decisions_1_confirm', confirm)
redis.register_function('penstock_decisions_1_start', start)
redis.register_function{function_name='penstock_decisions_1_digest', callback=digest, flags={'no-writes'}}
