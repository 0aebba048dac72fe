-- When the generations of idempotency keys change; see idempotency.lua.

-- @include keys
-- @include numbers
-- @include generations

-- Starts a generation when the current one is a time to live old.
local function drop_old_keys(state, ttl_s)
  if state.now_us - call('HGET', BOOK, 'idempotency_rotated') >= ttl_s * 1000000 then
    local generation = text(state.generation + 1)
    call('UNLINK', generation_key(generation))
    call('HSET', BOOK, 'idempotency_generation', generation, 'idempotency_rotated',
      state.now_us)
  end
end
