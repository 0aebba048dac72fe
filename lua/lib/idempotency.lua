-- Idempotency keys, in two generations: new records go into the current one; when it is one TTL old
-- the sweep drops the other, by then expired whole, and makes it the current one.
-- `<client>|<key>` -> `<order number>|<fingerprint of the payload>|<microseconds since 1970>`
--
-- Generations count from 0, and the two hashes are used in turn. ARGV 4 is the time to live in
-- seconds.

-- @include keys
-- @include generations
-- @include new

-- The answer to a key used before (CMD-4): a replay or a refusal; nil where the key is free.
local function earlier_use(state)
  local field, generation = new.use, state.generation
  local record = call('HGET', generation_key(generation), field)
    or generation ~= '0' and call('HGET', generation_key(generation + 1), field)
  if not record then
    return nil
  end
  local number, used_for, used_us = record:match('^(%d+)|([^|]*)|(%d+)$')
  if state.now_us - used_us >= ARGV[4] * 1000000 then
    return nil
  end
  if used_for ~= new.fingerprint then
    return { 'refused', 'idempotency_key_reused' }
  end
  return { 'replayed', number }
end

-- Records the use by the command that was just committed.
local function remember_use(state)
  if new.use ~= '' then
    call('HSET', generation_key(state.generation), new.use,
      state.next .. '|' .. new.fingerprint .. '|' .. state.now_us)
  end
end
