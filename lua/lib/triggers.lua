-- Stops that trades have triggered are carried out, one by one, each as a command of its own
-- (CMD-2).

-- @include keys
-- @include waiting
-- @include order
-- @include bands
-- @include padding
-- @include concluding
-- @include taking

local MAX_TRIGGERS = 20 -- stops carried out in one call

-- What the triggered stop meets (STP-5, STP-8), by its own self-trade prevention (SLF-8); nil where
-- it has to wait.
local function take_stop(state, order, budget)
  local _, other = sides_of(order.side)
  begin(state)
  if order.expires ~= '' and order.expires <= state.now_us then
    order.status, order.reason = 'expired', 'expired'
    return OVER
  end
  if order.price ~= '' and outside_band(order.price, state) then
    order.status, order.reason = 'cancelled', 'price_band'
    return OVER
  end
  local best = call('ZRANGE', other.key, 0, 0, 'WITHSCORES')
  local met = take(state, order, best, limit_score(state, order), budget)
  if met.cut_short and budget < MAX_FILLS then
    return nil
  end
  order.priority = met.rests and padded(state.sequence + 1) or '' -- PLC-2
  return met
end

-- Carries out one stop; returns what it met, or nil where it has to wait.
local function trigger(state, side, member, budget)
  local number = member:sub(-14)
  local order = read_order(number, call('HGET', BOOK, number))
  order.listed = true
  local met = take_stop(state, order, budget)
  if met then
    state.met = state.met + 1 -- so that stops that meet nobody end a call, too
    count('pending', -1)
    if conclude(state, 'trigger', order, met) then -- MAT-8
      order.status, order.reason, met.rests = 'cancelled', 'level_quantity_overflow', nil
      conclude(state, 'trigger', order, met)
    end
    call('ZREM', side.stops, member)
  end
  return met
end

-- Carries out the stops that trades between `low` and `high` have triggered, and those that these
-- trigger, as far as MAX_TRIGGERS and `budget`, the makers still to be met, allow. The others wait.
local function trigger_range(state, low, high, budget)
  for _ = 1, MAX_TRIGGERS do
    local side, member = next_triggered(low, high)
    local met = side and trigger(state, side, member, budget)
    if not met then
      break
    end
    budget = budget - (met.count or 0)
    if met.last_price then
      low = math.min(low, met.first_price, met.last_price)
      high = math.max(high, met.first_price, met.last_price)
    end
  end
  if next_triggered(low, high) then
    call('HSET', BOOK, 'trigger_low', text(low), 'trigger_high', text(high))
  else
    call('HDEL', BOOK, 'trigger_low', 'trigger_high')
  end
end
