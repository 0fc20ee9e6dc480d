-- SPDX-License-Identifier: Apache-2.0
--
-- What the Redis store does on the server, where nothing comes in between: one script, ARGV[1] names the operation
-- (the functions of `operations`). Answers are arrays of strings, of which the first is a word; store_redis.c and
-- redis_handlers.c read them.
--
--   KEYS[1]               nexus:{store}:, what every key begins with. The braces put all keys into one slot of a Redis
--                         Cluster: it works there, but one shard holds everything.
--   item:ID               hash: state, expires, wake, bytes; change: who changed it last; token, lease_until: the lease
--   waiting               sorted set of ids by expiry: items that are WAITING
--   waiting:PREFIX        the same of ids that begin so, which are those of one guest; expires with its last entry
--   wake                  sorted set of ids by when due() shall look at them: wake time, or end of the lease if later
--   source:SOURCE         hash: source (sealed), until; a field @NAME for each handler that refers to it: no expiry meanwhile
--   handlers              hash by name: SOURCE VERSION BYTES (sealed)
--   heard:TOKEN           list: who heard that a handler changed
--
-- Every operation may be sent twice, since an answer may be lost: the caller draws a token for each, and a change that
-- finds its own token in the item was made by the first attempt.
--
-- Times are milliseconds of the server's clock. Those from outside stay text when they are stored, since Lua would
-- write large numbers with an exponent. A server that is full (maxmemory) refuses a script's first write if that needs
-- memory: operations that must go through then delete something first.

local root, operation = KEYS[1], ARGV[1]
local waiting_key, wake_key, handlers_key = root .. 'waiting', root .. 'wake', root .. 'handlers'

local function item_key(id) return root .. 'item:' .. id end
local function source_key(hash) return root .. 'source:' .. hash end

-- 0 for what is missing or not a number: what is planted under our keys must not end in an error of the script.
local function number(text) return tonumber(text) or 0 end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Sources go when neither an item nor a handler needs them.
local function expire_source(key)
  if redis.call('HLEN', key) == 2 then redis.call('PEXPIREAT', key, redis.call('HGET', key, 'until')) end
end

local function keep_source(key, until_ms)
  local before = redis.call('HGET', key, 'until')
  if not before then return false end
  if tonumber(until_ms) > number(before) then
    redis.call('HSET', key, 'until', until_ms)
    expire_source(key)
  end
  return true
end

-- Ids of one guest begin alike.
local function waiting_of_guest_key(prefix) return waiting_key .. ':' .. prefix end
local function prefix_of(id) return string.sub(id, 1, 4) end

local function add_waiting(id, expires)
  local key = waiting_of_guest_key(prefix_of(id))
  redis.call('ZADD', waiting_key, expires, id)
  redis.call('ZADD', key, expires, id)
  redis.call('PEXPIREAT', key, string.format('%.0f', redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]))
end

local function remove_waiting(id)
  redis.call('ZREM', waiting_key, id)
  redis.call('ZREM', waiting_of_guest_key(prefix_of(id)), id)
end

-- How many, without those that have expired.
local function count_waiting(key)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now_ms()))
  return redis.call('ZCARD', key)
end

-- The item as create and commit have it: id, token, state, expires, wake, hash of the source, bytes.
local function put_item(id, token, state, expires, wake, hash, bytes)
  local key = item_key(id)
  redis.call('HSET', key, 'change', token, 'state', state, 'expires', expires, 'wake', wake, 'bytes', bytes)
  redis.call('HDEL', key, 'token', 'lease_until')
  redis.call('PEXPIREAT', key, expires)
  redis.call('ZREM', wake_key, id)
  if state == 'waiting' then
    add_waiting(id, expires)
    if wake ~= '0' then redis.call('ZADD', wake_key, wake, id) end
  else
    remove_waiting(id)
  end
  keep_source(source_key(hash), expires)
  return {'ok'}
end

local function holds_lease(key, token)
  local item = redis.call('HMGET', key, 'state', 'token', 'lease_until')
  return item[1] == 'waiting' and item[2] == token and number(item[3]) > now_ms()
end

-- An item that is leased stays until the lease ends even if it expires before: it may still be put back. PEXPIREAT refuses
-- times that are much later than any.
local function expire_item(key, lease_until_ms)
  local expires_ms = number(redis.call('HGET', key, 'expires'))
  local until_ms = math.min(math.max(expires_ms, lease_until_ms), 2 ^ 53)
  redis.call('PEXPIREAT', key, string.format('%.0f', until_ms))
end

local function set_lease(id, token, until_ms)
  local key = item_key(id)
  redis.call('HDEL', key, 'token') -- first, for a server that is full
  redis.call('HSET', key, 'token', token, 'lease_until', string.format('%.0f', until_ms))
  expire_item(key, until_ms)
  local wake_ms = number(redis.call('HGET', key, 'wake'))
  if wake_ms > 0 then redis.call('ZADD', wake_key, math.max(until_ms, wake_ms), id) end
end

local function answer_item(word, key)
  local item = redis.call('HMGET', key, 'state', 'expires', 'wake', 'bytes')
  return {word, item[1], item[2], item[3], item[4]}
end

local operations = {}

function operations.create(id, token, ...)
  local change = redis.call('HGET', item_key(id), 'change')
  if change == token then return {'ok'} end
  if change then return {'exists'} end
  return put_item(id, token, ...)
end

function operations.lease(id, token, lease_ms)
  local key, now = item_key(id), now_ms()
  local item = redis.call('HMGET', key, 'state', 'token', 'lease_until')
  if not item[1] then return {'none'} end
  if item[1] ~= 'waiting' then return answer_item('gone', key) end
  if item[2] and item[2] ~= token and number(item[3]) > now then return {'busy'} end
  set_lease(id, token, now + lease_ms)
  return answer_item('ok', key)
end

function operations.extend(id, token, lease_ms)
  if not holds_lease(item_key(id), token) then return {'gone'} end
  set_lease(id, token, now_ms() + lease_ms)
  return {'ok'}
end

function operations.commit(id, token, ...)
  local key = item_key(id)
  if redis.call('HGET', key, 'change') == token then return {'ok'} end
  if not holds_lease(key, token) then return {'gone'} end
  return put_item(id, token, ...)
end

function operations.release(id, token)
  local key = item_key(id)
  if holds_lease(key, token) then
    redis.call('HDEL', key, 'token', 'lease_until')
    expire_item(key, 0)
    local wake_ms = number(redis.call('HGET', key, 'wake'))
    if wake_ms > 0 then redis.call('ZADD', wake_key, wake_ms, id) end
  end
  return {'ok'}
end

function operations.read(id)
  local key = item_key(id)
  if redis.call('EXISTS', key) == 0 then return {'none'} end
  return answer_item('ok', key)
end

function operations.cancel(id, token)
  local key = item_key(id)
  local item = redis.call('HMGET', key, 'state', 'change')
  if not item[1] then return {'none'} end
  if item[2] == token then return {'ok'} end
  if item[1] ~= 'waiting' then return {'gone'} end
  remove_waiting(id)
  redis.call('ZREM', wake_key, id)
  redis.call('HDEL', key, 'token', 'lease_until')
  redis.call('HSET', key, 'state', 'cancelled', 'change', token)
  return {'ok'}
end

-- What is in the index but no item of ours any more leaves it here. Answers how many entries it looked at, and the ids.
function operations.due(until_ms, max, offset)
  local ids, now = redis.call('ZRANGEBYSCORE', wake_key, '-inf', until_ms, 'LIMIT', offset, max), now_ms()
  local found = {'ok', tostring(#ids)}
  for _, id in ipairs(ids) do
    local item = redis.pcall('HMGET', item_key(id), 'state', 'lease_until')
    if item.err or item[1] ~= 'waiting' then
      redis.call('ZREM', wake_key, id)
    elseif number(item[2]) <= now then
      table.insert(found, id)
    end
  end
  return found
end

-- Items and sources expire by themselves; their entries in `waiting` do not. Answers how many wait, and how many of them
-- have ids that begin with the prefix.
function operations.sweep(prefix)
  local all = count_waiting(waiting_key)
  local own = prefix == '' and all or count_waiting(waiting_of_guest_key(prefix))
  return {'ok', tostring(all), tostring(own)}
end

-- Without the source only when it is there already.
function operations.keep_source(hash, until_ms, source)
  local key = source_key(hash)
  if source then redis.call('HSET', key, 'source', source) end
  if keep_source(key, until_ms) then return {'ok'} end
  if not source then return {'none'} end
  redis.call('HSET', key, 'until', until_ms)
  redis.call('PEXPIREAT', key, until_ms)
  return {'ok'}
end

function operations.load_source(hash)
  local source = redis.call('HGET', source_key(hash), 'source')
  if not source then return {'none'} end
  return {'ok', source}
end

local function hash_of(handler) return string.sub(handler, 1, 64) end

-- '' for one that is damaged.
local function version_of(handler)
  return string.match(handler, '^' .. string.rep('%x', 64) .. ' (' .. string.rep('%x', 16) .. ') ') or ''
end

-- Whether the name has the expected version: 'any', or '' for none.
local function is_expected(name, expected)
  if expected == 'any' then return true end
  return version_of(redis.call('HGET', handlers_key, name) or '') == expected
end

-- Answers how many will hear of it.
local function announce(channel, token) return {'ok', tostring(redis.call('PUBLISH', channel, token))} end

-- The name does not refer to its source any more, unless that is this one.
local function let_go(name, unless_key)
  local handler = redis.call('HGET', handlers_key, name)
  if not handler then return false end
  local key = source_key(hash_of(handler))
  if key ~= unless_key then
    redis.call('HDEL', key, '@' .. name)
    expire_source(key)
  end
  return true
end

-- Versions are random: one that is there already was put by the first attempt.
function operations.put_handler(name, handler, expected, channel, token)
  local key = source_key(hash_of(handler))
  if redis.call('EXISTS', key) == 0 then return {'none'} end
  if not is_expected(name, expected) and redis.call('HGET', handlers_key, name) ~= handler then return {'changed'} end
  let_go(name, key)
  redis.call('HSET', key, '@' .. name, '')
  redis.call('PERSIST', key)
  redis.call('HSET', handlers_key, name, handler)
  return announce(channel, token)
end

function operations.get_handler(name)
  local handler = redis.call('HGET', handlers_key, name)
  if not handler then return {'none'} end
  return {'ok', handler}
end

function operations.remove_handler(name, expected, channel, token)
  if not is_expected(name, expected) then return {'changed'} end
  if not let_go(name) then return {'none'} end
  redis.call('HDEL', handlers_key, name)
  return announce(channel, token)
end

-- Names and versions.
function operations.list_handlers()
  local found = {'ok'}
  for _, name in ipairs(redis.call('HKEYS', handlers_key)) do
    table.insert(found, name)
    table.insert(found, version_of(redis.call('HGET', handlers_key, name)))
  end
  return found
end

-- One more has heard of the change with this token.
function operations.hear(token)
  local key = root .. 'heard:' .. token
  redis.call('RPUSH', key, '')
  redis.call('PEXPIRE', key, 5000)
  return {'ok'}
end

return operations[operation](unpack(ARGV, 2))
