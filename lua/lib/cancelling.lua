-- One order's cancel. Written out, since it is most of what a book sees after new orders;
-- closing.lua does the same for many orders in one command.

-- @include keys
-- @include numbers
-- @include record

-- Cancels the order `number`, or, where that is empty, the open one of `<client>|<client order
-- id>`.
local function cancel(state, number, client_order_id, reason)
  if number == '' then
    number = call('HGET', CLIENT_ORDER_IDS, client_order_id)
  end
  local record = number and call('HGET', BOOK, number)
  if not record then
    return { 'refused', 'order_not_found' }
  end
  local status, quantity, filled, notional, price, displayed, priority, tail, client, own_id,
    expires, _, _, side = record:match(RECORD)
  if not OPEN[status] then
    return { 'refused', 'order_not_open' }
  end
  if state.status == 'halted' then -- STA-3
    return { 'refused', 'instrument_halted' }
  end
  -- What it leaves: the stops, or a level of the book.
  local buys, counted, lots = side == 'buy', 'pending', 1
  local key = buys and BUY_STOPS or SELL_STOPS
  if status ~= 'pending' then
    key, counted = buys and BIDS or ASKS, (buys and 'bid:' or 'ask:') .. price
    lots = displayed ~= '' and displayed or quantity - filled -- ICE-1
  end
  local open_field = 'open:' .. client
  local before = call('HMGET', BOOK, counted, open_field)
  local left, still_open = text(before[1] - lots), text(before[2] - 1)
  local next, now_us = text(state.sequence + 1), state.now_us
  local over = record_text('cancelled', reason, quantity, filled, notional, price,
    displayed ~= '' and '0' or '', priority, next .. '|' .. now_us, tail)
  local line = number .. '|' .. over

  call('XADD', EVENTS, next .. '-0', 'type', 'cancel', 'time', now_us, 'orders', line,
    'fills', '', 'levels', status == 'pending' and '' or counted .. '=' .. left)
  call('HSET', BOOK, 'sequence', next, 'time', now_us, number, over, counted, left,
    open_field, still_open)
  if left == '0' then
    call('HDEL', BOOK, counted)
  end
  if still_open == '0' then
    call('HDEL', BOOK, open_field)
  end
  call('ZREM', key, priority == '' and number or priority .. ':' .. number)
  call('ZREM', OWNERS, client .. '|' .. number)
  if own_id ~= '' then
    call('HDEL', CLIENT_ORDER_IDS, client .. '|' .. own_id)
  end
  if expires ~= '' then
    call('ZREM', EXPIRIES, number)
  end
  state.sequence = state.sequence + 1
  return { 'accepted', next, now_us, line }
end
