-- The usual order: nothing stands against it, it meets nobody, and rests. It is most of what a book
-- sees, so it is written out here, which takes a quarter less time than by way of placing.lua and
-- concluding.lua. Whatever is not certain at a glance is left to them, refusals above all.

-- @include keys
-- @include padding
-- @include idempotency
-- @include new

local ROUNDING = 1 - 2 ^ -50 -- more than a product of two integers below 2^53 may be off

-- Whether the order rests and meets nobody; `best_score` is that of the other side's best, or nil.
local function rests_alone(best_score)
  return (new.plain == 'both' or new.plain == 'rest')
    and (not best_score or tonumber(best_score) > new.limit)
    and (new.client_order_id == ''
      or call('HEXISTS', CLIENT_ORDER_IDS, new.client .. '|' .. new.client_order_id) == 0)
end

-- Whether the order is certainly within the instrument's limits.
local function is_within_limits(state, open_orders)
  local ticks, quantity, last = new.ticks, new.quantity, state.last
  if (state.max_lots and quantity > state.max_lots)
    or (state.max_open and (open_orders or 0) - state.max_open >= 0) then
    return false
  end
  if not ticks then
    return true
  end
  return (not state.notional_limit or ticks * quantity <= state.notional_limit * ROUNDING)
    and (not (state.band_bps and last)
      or math.abs(ticks - last) <= (last * state.band_bps / 10000 - 1) * ROUNDING)
end

-- Rests the order and answers. `level` and `open_field` are counts of the book hash, followed by what
-- they are.
local function rest_at_once(state, level, level_lots, open_field, open_orders)
  local price, client = new.price, new.client
  local total = (level_lots or 0) + new.quantity
  if total >= EXACT_LIMIT then -- MAT-8
    return { 'refused', 'level_quantity_overflow' }
  end
  local sequence, now_us = state.sequence + 1, state.now_us
  local number, next, new_total = padded(sequence), text(sequence), text(total)
  local record = 'open||' .. new.lots .. '|0|0|' .. price .. '|||||' .. now_us .. '|' .. new.tail
  local line = number .. '|' .. record

  if new.use == '' then
    call('XADD', EVENTS, next .. '-0', 'type', 'place', 'time', now_us, 'orders', line,
      'fills', '', 'levels', level .. '=' .. new_total)
  else
    call('XADD', EVENTS, next .. '-0', 'type', 'place', 'time', now_us, 'orders', line,
      'fills', '', 'levels', level .. '=' .. new_total, 'detail', new.fingerprint)
  end
  local still_open = text((open_orders or 0) + 1)
  if state.is_stored then
    call('HSET', BOOK, 'sequence', next, level, new_total, open_field, still_open, number, record)
  else
    call('HSET', BOOK, 'sequence', next, level, new_total, open_field, still_open, number, record,
      'time', now_us)
    state.is_stored = true
  end
  if new.side == 'buy' then
    call('ZADD', BIDS, '-' .. price, number)
  else
    call('ZADD', ASKS, price, number)
  end
  call('ZADD', OWNERS, 0, client .. '|' .. number)
  if new.client_order_id ~= '' then
    call('HSET', CLIENT_ORDER_IDS, client .. '|' .. new.client_order_id, number)
  end
  state.sequence, state.next = sequence, next
  remember_use(state)
  return { 'accepted', next, now_us, line, '' }
end

-- Whether the order may be filled by plain makers alone (filling.lua), as far as that is known
-- without them: it crosses, no stop waits, and no limit depends on what it would meet.
local function may_fill_at_once(best_score, state)
  return best_score and tonumber(best_score) <= new.limit and not state.pending
    and (new.plain == 'both' or new.plain == 'take') and new.client_order_id == ''
    and (new.ticks or not (state.band_bps or state.max_notional))
end
