#!lua name=penstock_store_2
-- What the store does inside the server. A leaf's value begins with its version, 16 bytes: generation
-- and offset + 1, both big-endian; 16 zero bytes stand for a leaf that is not there.

local NONE = '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'

-- Strings are not compared with `<`: Lua would go by the server's locale.
local function before(one, other)
  local a, b, c, d = struct.unpack('>I4I4I4I4', one)
  local e, f, g, h = struct.unpack('>I4I4I4I4', other)
  if a ~= e then return a < e end
  if b ~= f then return b < f end
  if c ~= g then return c < g end
  return d < h
end

-- keys: the leaf, the ids of its bucket. args: base, id, value.
-- Returns 1 accepted, 2 at or past it already, 3 refused, 4 if the leaf is gone: its id is still among the ids, so it
-- expired, was evicted or removed, and is not one that was never there. A server loses both or neither.
local function write(keys, args)
  local stored = redis.call('GETRANGE', keys[1], 0, 15)
  if #stored == 0 then
    if redis.call('ZSCORE', keys[2], args[2]) then return 4 end
    stored = NONE
  end
  if #stored ~= 16 then return redis.error_reply('DAMAGED a leaf is shorter than its version') end
  if stored == args[1] then
    redis.call('SET', keys[1], args[3])
    if stored == NONE then redis.call('ZADD', keys[2], 0, args[2]) end
    return 1
  end
  if before(stored, string.sub(args[3], 1, 16)) then return 3 end
  return 2
end

-- keys: the leaf, the ids of its bucket. args: id.
local function drop(keys, args)
  redis.call('UNLINK', keys[1])
  redis.call('ZREM', keys[2], args[1])
  return 1
end

-- keys: the applied offsets of an epoch, the marker. args: partition, version, marker.
-- Whoever has not seen that the server was emptied must not say what it holds.
local function note(keys, args)
  if redis.call('GET', keys[2]) ~= args[3] then return redis.error_reply('MOVED_ON the marker is another') end
  local stored = redis.call('HGET', keys[1], args[1])
  if not stored or before(stored, args[2]) then redis.call('HSET', keys[1], args[1], args[2]) end
  return 1
end

-- keys: the applied offsets of an epoch, those being confirmed. args: partition.
-- Writes, whatever it finds, so that WAIT after it waits for all that was written before.
local function confirm(keys, args)
  local stored = redis.call('HGET', keys[1], args[1]) or NONE
  redis.call('HSET', keys[2], args[1], stored)
  return stored
end

local function digest() return '@DIGEST@' end

redis.register_function('penstock_store_2_write', write)
redis.register_function('penstock_store_2_drop', drop)
redis.register_function('penstock_store_2_note', note)
redis.register_function('penstock_store_2_confirm', confirm)
redis.register_function{function_name='penstock_store_2_digest', callback=digest, flags={'no-writes'}}
