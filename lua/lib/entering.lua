-- The three ways of a new order: it rests at once, plain makers fill it at once, or it is one for
-- which everything there is may matter.

-- @include keys
-- @include intake
-- @include idempotency
-- @include new
-- @include usual

local fill_at_once, place_order -- defined when an order first needs them, which most do not

local function define_filling()
  -- @include filling
  return fill
end

local function define_placing()
  -- @include placing
  return place
end

-- Places the order that is in `new`, and answers.
local function enter(state)
  local buys, open_field = new.side == 'buy', 'open:' .. new.client
  local level = (buys and 'bid:' or 'ask:') .. new.price
  local killed, open_orders, level_lots =
    unpack(call('HMGET', BOOK, 'killed:' .. new.client, open_field, level))
  local answer = new.use ~= '' and earlier_use(state) or intake_refusal(state, killed)
  if answer then
    return answer
  end
  local best = call('ZRANGE', buys and ASKS or BIDS, 0, 0, 'WITHSCORES')
  if is_within_limits(state, open_orders) then
    if rests_alone(best[2]) then
      return rest_at_once(state, level, level_lots, open_field, open_orders)
    end
    fill_at_once = fill_at_once or define_filling()
    answer = may_fill_at_once(best[2], state) and fill_at_once(state, best)
    if answer then
      return answer
    end
  end
  place_order = place_order or define_placing()
  return place_order(state, best, open_orders)
end
