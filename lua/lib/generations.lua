-- Which of the two hashes of idempotency keys a generation uses; see idempotency.lua.

local function generation_key(generation)
  return KEYS[6 + generation % 2]
end
