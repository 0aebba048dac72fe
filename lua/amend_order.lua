-- Amends an open order or a pending stop: price, quantity, stop price (AMD). A smaller quantity
-- keeps its place in the queue; anything else loses it and may trade.
--
-- Guarantee: atomic; an accepted amendment takes one sequence and appends one event; a refused one
-- changes nothing. Stops that its trades trigger follow as events of their own.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     1 to 3 as lib/standing.lua says   4 order number, 14 digits, or empty   5 where it is:
--          client|client order id   6 price in ticks   7 quantity in lots   8 stop price in ticks;
--          each empty to leave it
-- Returns  {'accepted', sequence, time in µs, number|record, fills}
--          {'refused', code}
-- Refuses  in this order: book_missing, schema_mismatch, book_behind, book_changed, too_late,
--          order_not_found (Redis holds no such order; Postgres may, if it is over),
--          order_not_open, backlog_full, instrument_halted, cancel_only, kill_switch,
--          not_amendable, amend_below_filled, risk_limit, price_band, triggers_outstanding,
--          stop_would_trigger, post_only_would_cross, level_quantity_overflow

-- @include keys
-- @include state
-- @include amending
-- @include concluding

local state = read_state()
local order, change, refusal = read_amendment(state)
if refusal then
  return refusal
end
local own, other = sides_of(order.side)
local key = order.status == 'pending' and own.stops or own.key
local member, level, shown = member_of(order), own.level .. order.price, shown_lots(order)

-- Books the order as decided, and answers.
local function accept(met)
  refusal = conclude(state, 'amend', order, met)
  if refusal then
    return refusal
  end
  if met ~= KEEPS then
    call('ZREM', key, member)
  end
  return { 'accepted', state.next, state.now_us, lines[1], table.concat(fills, ' ') }
end

begin(state)
if change.ends then -- AMD-2
  order.quantity, order.status = change.quantity, 'filled'
  count(level, -shown)
  return accept(OVER)
end
if change.keeps_place then
  keep_place(order, change, level)
  return accept(KEEPS)
end
apply(order, change)
if order.status == 'pending' then -- AMD-5
  order.priority = padded(state.sequence + 1)
  return accept(change.new_stop and PENDS or MOVES)
end
-- @include taking
local best = call('ZRANGE', other.key, 0, 0, 'WITHSCORES')
local met = take(state, order, best, limit_score(state, order), MAX_FILLS) -- AMD-4
if met.would_cross then
  return { 'refused', 'post_only_would_cross' }
end
order.priority = met.rests and padded(state.sequence + 1) or '' -- PLC-2
count(level, -shown)
local answer = accept(met)
if state.pending and met.last_price then
  -- @include triggering
  trigger_stops(state, met, MAX_FILLS - met.count)
end
return answer
