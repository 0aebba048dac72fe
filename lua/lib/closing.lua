-- Ending open orders that no trade ends: cancelled or expired, one or many in one command.

-- @include keys
-- @include sides
-- @include order
-- @include changing
-- @include withdrawing
-- @include commit

-- Reads the orders of these numbers, which are open.
local function read_orders(numbers)
  local orders = {}
  if #numbers > 0 then
    for i, record in ipairs(call('HMGET', BOOK, unpack(numbers))) do
      orders[i] = read_order(numbers[i], record)
    end
  end
  return orders
end

-- Ends one order in the counts.
local function close_order(order, status, reason)
  local own = sides_of(order.side)
  if order.status == 'pending' then
    count('pending', -1)
    end_order(order, status, reason)
  else
    end_resting(order, own.level .. order.price, status, reason)
  end
end

-- Ends `orders`, in their order, as one command. Their sets, by key, are what they leave in the
-- end.
local function close_orders(state, kind, orders, status, reason, detail)
  local leaving = {}
  begin(state)
  for _, order in ipairs(orders) do
    local own = sides_of(order.side)
    local key = order.status == 'pending' and own.stops or own.key
    leaving[key] = leaving[key] or {}
    table.insert(leaving[key], member_of(order))
    close_order(order, status, reason)
    change_order(order, state.touched)
  end
  commit(state, kind, nil, detail)
  for _, key in ipairs({ BIDS, ASKS, BUY_STOPS, SELL_STOPS }) do
    if leaving[key] then
      call('ZREM', key, unpack(leaving[key]))
    end
  end
  leave_indexes(orders)
end
