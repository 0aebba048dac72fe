-- Stops that a command's own trades trigger.

-- @include triggers

-- Carries them out, and those that wait since before; `met` is what the command met, `budget` the
-- makers that may still be met.
local function trigger_stops(state, met, budget)
  local low, high = waiting_range()
  low = math.min(met.first_price, met.last_price, low or met.last_price)
  high = math.max(met.first_price, met.last_price, high or met.last_price)
  trigger_range(state, low, high, budget)
end
