-- The band around the last price that an order must keep within.

-- @include sides

local BASIS = 10000

-- Lowest and highest price of the band; nil for none (BND-1). Each product stays below 2^53,
-- whatever the price.
local function band_of(state)
  local last, bps = state.last, state.band_bps
  if not last or not bps then
    return nil
  end
  local rest = math.fmod(last, BASIS)
  local width = (last - rest) / BASIS * bps + math.floor(rest * bps / BASIS)
  return last - width, last + width
end

local function outside_band(price, state)
  local low, high = band_of(state)
  return low ~= nil and (tonumber(price) < low or tonumber(price) > high)
end

-- The score of the other side's entries up to which an order may trade: by its price (MAT-3), or,
-- where it has none, by the band (BND-3).
local function limit_score(state, order)
  local _, other = sides_of(order.side)
  if order.price ~= '' then
    return other.sign * order.price
  end
  local low, high = band_of(state)
  if not low then
    return math.huge
  end
  return order.side == 'buy' and high or -low
end
