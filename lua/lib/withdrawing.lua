-- Orders that end while they rest.

-- @include order
-- @include changes
-- @include ending

-- As end_order, of one that rests at `level`.
local function end_resting(order, level, status, reason)
  count(level, -shown_lots(order))
  end_order(order, status, reason)
end
