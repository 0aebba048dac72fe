-- An order as the scripts hold it: its record's fields, all of them text.

-- @include numbers
-- @include record

local function read_order(number, record)
  local status, quantity, filled, notional, price, displayed, priority, tail, client,
    client_order_id, expires, display, prevention, side, kind, time_in_force, post_only,
    stop_price = record:match(RECORD)
  return {
    number = number, status = status, reason = '', quantity = quantity, filled = filled,
    notional = notional, price = price, displayed = displayed, priority = priority, tail = tail,
    client = client, client_order_id = client_order_id, expires = expires, display = display,
    prevention = prevention, side = side, kind = kind, time_in_force = time_in_force,
    post_only = post_only, stop_price = stop_price,
  }
end

-- Its record; `touched` as of record_text.
local function record_of(order, touched)
  return record_text(order.status, order.reason, order.quantity, order.filled, order.notional,
    order.price, order.displayed, order.priority, touched, order.tail)
end

-- The order's member in the sorted set of its side or of its stops: its place, then its number.
local function member_of(order)
  return order.priority == '' and order.number or order.priority .. ':' .. order.number
end

-- Lots that the order shows while it rests: of an iceberg its displayed part (ICE-1).
local function shown_lots(order)
  if order.displayed ~= '' then
    return tonumber(order.displayed)
  end
  return order.quantity - order.filled
end
