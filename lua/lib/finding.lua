-- The order that a command is about, by its number or by what its client calls it.

-- @include keys
-- @include order

-- The open order `number`, or, where that is empty, `<client>|<client order id>`; or nil and a
-- refusal.
local function find_open(number, client_order_id)
  if number == '' then
    number = call('HGET', CLIENT_ORDER_IDS, client_order_id)
  end
  local record = number and call('HGET', BOOK, number)
  if not record then
    return nil, { 'refused', 'order_not_found' }
  end
  local order = read_order(number, record)
  order.listed = true
  if not OPEN[order.status] then
    return nil, { 'refused', 'order_not_open' }
  end
  return order
end
