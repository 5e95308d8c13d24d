#!lua name=penstock_register_1
-- The register of suppressions inside the server. An entry is 17 bytes and a reason, in the order in which
-- entries count: instant, denial, event id, reason; of two the greater stands.

-- Byte by byte: `<` would go by the server's locale.
local function less(one, other)
  local shorter = math.min(#one, #other)
  for i = 1, shorter do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then return a < b end
  end
  return #one < #other
end

-- keys: the leaves. args: for each entry the place of its leaf among the keys, its name and the entry.
local function merge(keys, args)
  for i = 1, #args, 3 do
    local key, name, entry = keys[tonumber(args[i])], args[i + 1], args[i + 2]
    local standing = redis.call('HGET', key, name)
    if not standing or less(standing, entry) then redis.call('HSET', key, name, entry) end
  end
  return #args / 3
end

local function digest() return '@DIGEST@' end

redis.register_function('penstock_register_1_merge', merge)
redis.register_function{function_name='penstock_register_1_digest', callback=digest, flags={'no-writes'}}
