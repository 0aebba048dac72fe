-- How orders end: taken out of the counts before the command is committed, out of the sorted sets
-- and indexes after it.

-- @include keys
-- @include order
-- @include changes

-- An order is over and no longer one of its client's open orders.
local function end_order(order, status, reason)
  order.status, order.reason = status, reason
  if order.displayed ~= '' then
    order.displayed = '0'
  end
  count('open:' .. order.client, -1)
end

-- Takes orders that are over, and committed, out of the indexes by client and by expiry.
local function leave_indexes(orders)
  local owners, ids, expiring = {}, {}, {}
  for _, order in ipairs(orders) do
    if not OPEN[order.status] then
      owners[#owners + 1] = order.client .. '|' .. order.number
      if order.client_order_id ~= '' then
        ids[#ids + 1] = order.client .. '|' .. order.client_order_id
      end
      if order.expires ~= '' then
        expiring[#expiring + 1] = order.number
      end
    end
  end
  if #owners > 0 then
    call('ZREM', OWNERS, unpack(owners))
  end
  if #ids > 0 then
    call('HDEL', CLIENT_ORDER_IDS, unpack(ids))
  end
  if #expiring > 0 then
    call('ZREM', EXPIRIES, unpack(expiring))
  end
end
