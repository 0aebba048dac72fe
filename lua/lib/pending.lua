-- New stops.

-- @include stops
-- @include changes

-- Makes a new order a stop that waits (STP-1), or returns a refusal.
local function pend(state, order)
  begin(state)
  order.status = 'pending'
  count('pending', 1)
  state.pending = true
  return stop_refusal(order.side, order.stop_price, state.last)
end
