-- One clock per book: Redis's, in microseconds as text of 16 digits, never earlier than the book's
-- last command, so that a clock set back cannot reorder history. And Redis's as it is.

-- @include keys

local function clock_us(last_us)
  local now = call('TIME')
  local redis_us = now[1] .. string.format('%06d', now[2])
  if last_us and redis_us < last_us then
    return last_us, redis_us
  end
  return redis_us, redis_us
end
