-- When the generations of idempotency keys change; see idempotency.lua.

-- @include keys
-- @include numbers
-- @include generations

-- Starts a generation when the current one is a time to live old.
local function drop_old_keys(state, ttl_s)
  local now_s = state.now_us:sub(1, -7)
  if now_s - call('HGET', BOOK, 'idempotency_rotated') >= ttl_s then
    local generation = text(state.generation + 1)
    call('UNLINK', generation_key(generation))
    call('HSET', BOOK, 'idempotency_generation', generation, 'idempotency_rotated', now_s)
  end
end
