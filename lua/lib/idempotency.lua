-- Idempotency keys, in two generations: new records go into the current one; when it is one TTL old
-- the other, by then expired whole, is dropped in one step and becomes the current one.
-- `<client>|<key>` -> `<order number>|<fingerprint of the payload>|<seconds since 1970>`
--
-- Generations count from 0, and the two hashes are used in turn.

-- @include keys

local function generation_key(generation)
  return KEYS[7 + generation % 2]
end

-- What the other functions need to know of one use of a key.
local function idempotent_use(client, key, now_us, generation, rotated_s)
  return {
    field = client .. '|' .. key, fingerprint = ARGV[10], ttl_s = tonumber(ARGV[11]),
    now_s = tonumber(now_us:sub(1, -7)), generation = tonumber(generation),
    rotated_s = tonumber(rotated_s),
  }
end

-- The answer to a key used before: a replay or a refusal; nil where the key is free.
local function earlier_use(use)
  local record = call('HGET', generation_key(use.generation), use.field)
    or use.generation > 0 and call('HGET', generation_key(use.generation + 1), use.field)
  if not record then
    return nil
  end
  local number, fingerprint, used_s = record:match('^(%d+)|([^|]*)|(%d+)$')
  if use.now_s - used_s >= use.ttl_s then
    return nil
  end
  if fingerprint ~= use.fingerprint then
    return { 'refused', 'idempotency_key_reused' }
  end
  return { 'replayed', number }
end

-- Records the use by order `number`; starts a generation when the current one is a TTL old.
local function remember_use(use, number)
  local generation = use.generation
  if use.now_s - use.rotated_s >= use.ttl_s then
    generation = generation + 1
    call('UNLINK', generation_key(generation))
    call('HSET', BOOK, 'idempotency_generation', generation, 'idempotency_rotated', use.now_s)
  end
  call('HSET', generation_key(generation), use.field,
    number .. '|' .. use.fingerprint .. '|' .. use.now_s)
end
