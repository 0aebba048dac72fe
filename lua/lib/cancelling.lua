-- One order's cancel (CXL-1, CXL-2). Written out, since it is most of what a book sees after new
-- orders; closing.lua does the same for many orders in one command.

-- @include keys
-- @include numbers
-- @include record

local CANCEL_WIDTH = 3 -- arguments of one cancel

-- The counts of the book hash that an order leaves, its level or the pending stops and its client's
-- open orders, with what they will be.
local function counts_without(counted, lots, open_field)
  local before = call('HMGET', BOOK, counted, open_field)
  return text(before[1] - lots), text(before[2] - 1)
end

-- Writes a cancelled order: event, record and counts. `levels` is what the event tells of them.
local function write_cancel(state, number, record, counted, left, open_field, open, levels)
  call('XADD', EVENTS, state.next .. '-0', 'type', 'cancel', 'time', state.now_us,
    'orders', number .. '|' .. record, 'fills', '', 'levels', levels)
  if state.is_stored then
    call('HSET', BOOK, 'sequence', state.next, number, record, counted, left, open_field, open)
  else
    call('HSET', BOOK, 'sequence', state.next, number, record, counted, left, open_field, open,
      'time', state.now_us)
    state.is_stored = true
  end
  if left == '0' then
    call('HDEL', BOOK, counted)
  end
  if open == '0' then
    call('HDEL', BOOK, open_field)
  end
  state.sequence = state.sequence + 1
end

-- Cancels the order `number`, or, where that is empty, the open one of `<client>|<client order id>`.
local function cancel(state, number, client_order_id, reason)
  number = number ~= '' and number or call('HGET', CLIENT_ORDER_IDS, client_order_id)
  local found = number and call('HGET', BOOK, number)
  if not found then
    return { 'refused', 'order_not_found' }
  end
  local status, quantity, filled, notional, price, displayed, priority, tail, client, own_id,
    expires, _, _, side = found:match(RECORD)
  if not OPEN[status] then
    return { 'refused', 'order_not_open' }
  end
  if state.status == 'halted' then -- STA-3
    return { 'refused', 'instrument_halted' }
  end
  local buys, pends, open_field = side == 'buy', status == 'pending', 'open:' .. client
  local key, counted, lots = buys and BUY_STOPS or SELL_STOPS, 'pending', 1
  if not pends then
    key, counted = buys and BIDS or ASKS, (buys and 'bid:' or 'ask:') .. price
    lots = displayed ~= '' and displayed or quantity - filled -- ICE-1
  end
  local left, open = counts_without(counted, lots, open_field)
  state.next = text(state.sequence + 1)
  local record = record_text('cancelled', reason, quantity, filled, notional, price,
    displayed ~= '' and '0' or '', priority, state.next .. '|' .. state.now_us, tail)
  write_cancel(state, number, record, counted, left, open_field, open,
    pends and '' or counted .. '=' .. left)
  call('ZREM', key, priority == '' and number or priority .. ':' .. number)
  call('ZREM', OWNERS, client .. '|' .. number)
  if own_id ~= '' then
    call('HDEL', CLIENT_ORDER_IDS, client .. '|' .. own_id)
  end
  if expires ~= '' then
    call('ZREM', EXPIRIES, number)
  end
  return { 'accepted', state.next, state.now_us, number .. '|' .. record }
end
