-- What happens when a taker meets a maker of the same client (SLF).

-- @include numbers
-- @include changes
-- @include withdrawing

-- Takes `lots` off what the maker has remaining; it keeps its place.
local function reduce(maker, level, lots)
  local before = shown_lots(maker)
  maker.quantity = text(maker.quantity - lots)
  if maker.displayed ~= '' then
    maker.displayed = text(math.min(maker.displayed, maker.quantity - maker.filled))
  end
  count(level, shown_lots(maker) - before)
end

-- Carries out the taker's mode; met.prevented: the taker goes no further.
local function prevent(met, maker, level)
  local taker, open = met.taker, maker.quantity - maker.filled
  local mode = taker.prevention
  if mode == 'cancel_newest' or (met.all_or_none and mode ~= 'cancel_oldest') then -- SLF-2, SLF-7
    met.prevented = true
    return
  end
  touch(met, maker)
  if mode == 'decrement' and open > met.left then -- SLF-5
    reduce(maker, level, met.left)
    met.prevented = true
    return
  end
  if mode == 'decrement' and open < met.left then
    taker.quantity = text(taker.quantity - open)
    met.left = met.left - open
  elseif mode ~= 'cancel_oldest' then -- SLF-4, and SLF-5 of equals
    met.prevented = true
  end
  end_resting(maker, level, 'cancelled', 'self_trade_prevented') -- SLF-6, also SLF-3
end
