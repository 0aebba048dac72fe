-- The two sides of a book: key, prefix of the level totals, and the sign that makes a price a
-- score, so that the best entry of either side is the one at index 0. Stops of a side lie in a set
-- of their own, scored so that the one to be triggered first is at index 0.

-- @include keys

local BID_SIDE = { key = BIDS, level = 'bid:', sign = -1, stops = BUY_STOPS, stop_sign = 1 }
local ASK_SIDE = { key = ASKS, level = 'ask:', sign = 1, stops = SELL_STOPS, stop_sign = -1 }

-- The side that an order rests on, and the one that it trades with.
local function sides_of(side)
  if side == 'buy' then
    return BID_SIDE, ASK_SIDE
  end
  return ASK_SIDE, BID_SIDE
end
