-- An order that comes in and may trade: a new one, an amended one, a triggered stop.

-- @include changes
-- @include matching
-- @include concluding

-- Status and reason of an order after matching, and whether it rests (MAT-4, MAT-5, MAT-6).
local function outcome(order, met)
  if met.left == 0 then
    return 'filled', ''
  elseif met.prevented and not met.all_or_none then
    return 'cancelled', 'self_trade_prevented'
  elseif met.cut_short then
    return 'cancelled', 'fill_limit'
  elseif met.all_or_none then
    return 'cancelled', 'fok_unfilled'
  elseif order.price == '' then
    return 'cancelled', met.beyond and 'price_band' or 'no_liquidity'
  elseif order.time_in_force == 'ioc' then
    return 'cancelled', 'ioc_remainder'
  end
  return met.left < tonumber(order.quantity) and 'partially_filled' or 'open', '', true
end

-- Matches an order and decides what becomes of it; nothing is written. Fill-or-kill that comes out
-- short has met nobody, but for the count of makers that were looked at.
local function take(state, order, best, score, budget)
  begin(state)
  local met = match(state, order, best, score, budget)
  order.status, order.reason, met.rests = outcome(order, met)
  if met.all_or_none and met.left > 0 then
    begin(state)
    met.makers, met.left, met.notional = {}, order.quantity - order.filled, order.notional
    met.last_price = false
  end
  order.filled, order.notional = text(order.quantity - met.left), met.notional
  return met
end
