-- Stops that trades have triggered and that wait to be carried out.
--
-- While some wait (STP-6), the book hash has trigger_low and trigger_high, the lowest and highest
-- prices of the trades that they wait since. No stop price enters meanwhile (STP-7), so every stop
-- in that range is one that waits. When the last of them is cancelled the range stays until it is
-- looked at next.

-- @include keys
-- @include numbers
-- @include sides

-- Side and member of the stop that is triggered first (STP-4) where trades were between `low` and
-- `high` (STP-2), or nil.
local function next_triggered(low, high)
  for _, side in ipairs({ BID_SIDE, ASK_SIDE }) do
    local reached = side == BID_SIDE and high or low
    local found = call('ZRANGEBYSCORE', side.stops, '-inf', text(side.stop_sign * reached),
      'LIMIT', 0, 1)
    if found[1] then
      return side, found[1]
    end
  end
end

-- Lowest and highest price of the range, or nil where no stop waits.
local function waiting_range()
  local low, high = unpack(call('HMGET', BOOK, 'trigger_low', 'trigger_high'))
  if low and next_triggered(low, high) then
    return tonumber(low), tonumber(high)
  end
end
