-- The instrument's limits on one order: quantity and notional. Limits are text, or false.

-- @include notional

-- Whether `notional`, text, is above `limit`.
local function above(notional, limit)
  return limit and (#notional > #limit or (#notional == #limit and notional > limit))
end

-- Whether an order of `quantity` breaks RSK-1 or RSK-2, as far as its notional is known beforehand.
local function breaks_limits(state, order, quantity)
  if state.max_lots and quantity - state.max_lots > 0 then
    return true
  end
  local price = order.price ~= '' and order.price or order.stop_price
  return state.max_notional and price ~= ''
    and above(add_product('0', price, quantity), state.max_notional)
end
