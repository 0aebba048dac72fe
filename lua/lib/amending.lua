-- What an amendment makes of an order, and what refuses it (AMD).

-- @include keys
-- @include standing
-- @include intake
-- @include finding
-- @include order
-- @include changes
-- @include limits
-- @include bands
-- @include padding
-- @include stops

-- The order's price, quantity and stop price as they will be, and how they differ; the arguments
-- are what was asked for, empty where it was not.
local function change_of(order, price, quantity, stop_price)
  local change = {
    asked_price = price, asked_stop = stop_price,
    price = price ~= '' and price or order.price,
    quantity = quantity ~= '' and quantity or order.quantity,
    stop_price = stop_price ~= '' and stop_price or order.stop_price,
  }
  change.new_price = change.price ~= order.price
  change.new_stop = change.stop_price ~= order.stop_price
  change.ends = change.quantity == order.filled
  change.keeps_place = not change.new_stop and change.quantity - order.quantity <= 0
    and (order.status == 'pending' or not change.new_price) -- AMD-3, AMD-5
  return change
end

-- The refusal of a change that the order or the instrument's limits do not allow (AMD-6).
local function change_refusal(order, change, state)
  local pends = order.status == 'pending'
  if (change.asked_price ~= '' and order.price == '')
    or (change.asked_stop ~= '' and not pends) then
    return { 'refused', 'not_amendable' }
  end
  if tonumber(change.quantity) < tonumber(order.filled) then
    return { 'refused', 'amend_below_filled' }
  end
  if change.ends then
    return nil
  end
  local is_other = change.new_price or change.new_stop or change.quantity ~= order.quantity
  if is_other and breaks_limits(state, change, change.quantity) then
    return { 'refused', 'risk_limit' }
  end
  if change.new_price and not pends and outside_band(change.price, state) then
    return { 'refused', 'price_band' }
  end
  if change.new_stop then
    return stop_refusal(order.side, change.stop_price, state.last)
  end
end

-- The order that ARGV names and what it asks for, or a refusal; amend_order.lua says what is in
-- ARGV.
local function read_amendment(state)
  local refusal, order = standing_refusal(state), nil
  if not refusal then
    order, refusal = find_open(ARGV[4], ARGV[5])
  end
  if not refusal and order.expires ~= '' and order.expires <= state.now_us then -- AMD-1, EXP-2
    refusal = { 'refused', 'order_not_open' }
  end
  if refusal then
    return nil, nil, refusal
  end
  local change = change_of(order, ARGV[6], ARGV[7], ARGV[8])
  refusal = intake_refusal(state, call('HGET', BOOK, 'killed:' .. order.client))
    or change_refusal(order, change, state)
  return order, change, refusal
end

-- Changes an order that keeps its place: makes it smaller, or gives a pending stop another price.
local function keep_place(order, change, level)
  local before = shown_lots(order)
  order.price, order.quantity = change.price, change.quantity
  if order.displayed ~= '' then
    order.displayed = text(math.min(order.displayed, order.quantity - order.filled))
  end
  if order.status ~= 'pending' then
    count(level, shown_lots(order) - before)
  end
end

-- Changes an order that loses its place. The stop price is the tail's last but one field.
local function apply(order, change)
  order.price, order.quantity, order.stop_price = change.price, change.quantity, change.stop_price
  order.tail = order.tail:gsub('%d*|([^|]*)$', change.stop_price .. '|%1')
  if order.displayed ~= '' then
    order.displayed = '0'
  end
end
