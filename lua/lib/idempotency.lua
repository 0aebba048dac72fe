-- Idempotency keys, in two generations: new records go into the current one; when it is one TTL old
-- the other, by then expired whole, is dropped in one step and becomes the current one.
-- `<client>|<key>` -> `<order number>|<fingerprint of the payload>|<seconds since 1970>`
--
-- A use is {field, fingerprint, ttl_s, now_s, generation, rotated_s}.

-- @include keys

local FIRST_GENERATION = 7 -- KEYS[7] and KEYS[8]

-- The answer to a key used before: a replay or a refusal; nil where the key is free.
local function earlier_use(use)
  local record = redis.call('HGET', KEYS[FIRST_GENERATION + use.generation], use.field)
    or redis.call('HGET', KEYS[FIRST_GENERATION + 1 - use.generation], use.field)
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
    generation = 1 - generation
    redis.call('UNLINK', KEYS[FIRST_GENERATION + generation])
    redis.call('HSET', BOOK, 'idempotency_generation', generation,
      'idempotency_rotated', use.now_s)
  end
  redis.call('HSET', KEYS[FIRST_GENERATION + generation], use.field,
    number .. '|' .. use.fingerprint .. '|' .. use.now_s)
end
