-- Any new order: what it is, what refuses it, and how it is placed.

-- @include keys
-- @include padding
-- @include order
-- @include limits
-- @include bands
-- @include taking
-- @include new
-- @include idempotency

-- The order in `new`, before anything has happened to it.
local function new_order(state)
  local order = read_order(padded(state.sequence + 1), 'open||' .. new.lots .. '|0|0|'
    .. new.price .. '|||||' .. state.now_us .. '|' .. new.tail)
  if order.display ~= '' then
    order.displayed = '0'
  end
  return order
end

-- What refuses it before it is matched; `open_orders`: how many its client has, or false.
local function order_refusal(order, state, open_orders)
  if order.expires ~= '' and order.expires <= state.now_us then -- EXP-1
    return { 'refused', 'expires_in_past' }
  end
  if order.client_order_id ~= '' and call('HEXISTS', CLIENT_ORDER_IDS,
    order.client .. '|' .. order.client_order_id) == 1 then -- CMD-5
    return { 'refused', 'duplicate_client_order_id' }
  end
  local stops, tif = order.stop_price ~= '', order.time_in_force
  local may_rest = stops or (order.kind == 'limit' and (tif == 'gtc' or tif == 'gtd'))
  local is_full = state.max_open and may_rest and (open_orders or 0) - state.max_open >= 0 -- RSK-3
  if is_full or breaks_limits(state, order, order.quantity) then -- RSK-1, RSK-2
    return { 'refused', 'risk_limit' }
  end
  if not stops and order.price ~= '' and outside_band(order.price, state) then -- BND-2
    return { 'refused', 'price_band' }
  end
end

-- What refuses it once it is known what it would meet.
local function meeting_refusal(order, met, state)
  if met.would_cross then -- MAT-7
    return { 'refused', 'post_only_would_cross' }
  end
  if order.kind == 'market' and above(met.notional, state.max_notional) then -- RSK-2
    return { 'refused', 'risk_limit' }
  end
end

-- Places the order and answers; `best` is the other side's best entry.
local function place(state, best, open_orders)
  local order, met = new_order(state), PENDS
  local refusal = order_refusal(order, state, open_orders)
  if not refusal and order.stop_price ~= '' then
    -- @include pending
    refusal = pend(state, order)
  elseif not refusal then
    met = take(state, order, best, limit_score(state, order), MAX_FILLS)
    refusal = meeting_refusal(order, met, state)
  end
  refusal = refusal or conclude(state, 'place', order, met, new.detail)
  if refusal then
    return refusal
  end
  remember_use(state)
  local answer = { 'accepted', state.next, state.now_us, lines[1], table.concat(fills, ' ') }
  if state.pending and met.last_price then
    -- @include triggering
    trigger_stops(state, met, MAX_FILLS - met.count)
  end
  return answer
end
