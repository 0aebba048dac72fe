-- Stop prices that are refused.

-- @include waiting

-- The refusal of a new or changed stop price (STP-3, STP-7), given the last price or false.
local function stop_refusal(side, stop_price, last)
  if waiting_range() then
    return { 'refused', 'triggers_outstanding' }
  end
  local own = sides_of(side)
  if last and own.stop_sign * stop_price <= own.stop_sign * last then
    return { 'refused', 'stop_would_trigger' }
  end
end
