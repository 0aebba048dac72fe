-- Does what is due without anybody asking: carries out triggered stops that wait, expires orders,
-- fires timers, drops idempotency keys that are past their time to live. One bounded step of each.
--
-- Guarantee: atomic; each stop, each batch of expired orders and each timer takes one sequence and
-- appends one event. Called by several at once, or never, it changes when these happen, not what.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     1 to 3 as lib/standing.lua says   4 time to live of idempotency keys, seconds
-- Returns  {'swept', 1 where more is due, else empty}
--          {'refused', code}
-- Refuses  in this order: book_missing, schema_mismatch, book_behind, book_changed, too_late

-- @include keys
-- @include standing
-- @include state
-- @include rotating

local state = read_state()
local refusal = standing_refusal(state)
if refusal then
  return refusal
end

-- Does one step of what is due, and says whether more is.
local function sweep()
  -- @include due
  -- @include waiting
  local now_us, low, high = state.now_us, waiting_range()
  if not low and not anything_due(now_us) then
    return false
  end
  local may_trigger = not state.suspended and state.status ~= 'cancel_only' -- STP-8
  if low and may_trigger then
    -- @include triggers
    trigger_range(state, low, high, MAX_FILLS)
  end
  expire_due(state)
  fire_timer(state)
  return (may_trigger and waiting_range()) or anything_due(now_us)
end

local more = state.status ~= 'halted' and sweep() -- STA-3
drop_old_keys(state, tonumber(ARGV[4]))
return { 'swept', more and '1' or '' }
