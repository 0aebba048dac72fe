-- The usual order: nothing stands against it, it meets nobody, and rests. It is most of what a book
-- sees, so it is written out here and takes half the time that it would take by way of placing.lua
-- and concluding.lua. Whatever is not certain at a glance is left to them, refusals above all.

-- @include keys
-- @include padding
-- @include idempotency
-- @include new

local ROUNDING = 1 - 2 ^ -50 -- more than a product of two integers below 2^53 may be off

-- Whether the order rests and meets nobody; `best_score` is that of the other side's best, or nil.
local function rests_alone(best_score, state)
  local price, tif = tonumber(new.price), new.time_in_force
  return new.kind == 'limit' and (tif == 'gtc' or (tif == 'gtd' and new.expires > state.now_us))
    and (not best_score or tonumber(best_score) > (new.side == 'buy' and price or -price))
    and (new.client_order_id == ''
      or call('HEXISTS', CLIENT_ORDER_IDS, new.client .. '|' .. new.client_order_id) == 0)
end

-- Whether the order is certainly within the instrument's limits.
local function is_within_limits(state, open_orders)
  local price, lots, last = new.price, new.lots, state.last
  if (state.max_lots and lots - state.max_lots > 0)
    or (state.max_open and (open_orders or 0) - state.max_open >= 0) then
    return false
  end
  if price == '' then
    return true
  end
  return (not state.max_notional or price * lots <= state.max_notional * ROUNDING)
    and (not (state.band_bps and last)
      or math.abs(price - last) <= (last * state.band_bps / 10000 - 1) * ROUNDING)
end

-- Rests the order and answers. `level` and `open_field` are its counts in the book hash, and
-- values.
local function rest_at_once(state, level, level_lots, open_field, open_orders)
  local price, lots, client, display = new.price, new.lots, new.client, new.display
  local shown = display ~= '' and math.min(display, lots) or tonumber(lots) -- ICE-1
  local total = (level_lots or 0) + shown
  if total >= EXACT_LIMIT then -- MAT-8
    return { 'refused', 'level_quantity_overflow' }
  end
  local sequence, now_us = state.sequence + 1, state.now_us
  local number, next, new_total = padded(sequence), text(sequence), text(total)
  local displayed = display ~= '' and text(shown) or ''
  local record = 'open||' .. lots .. '|0|0|' .. price .. '|' .. displayed .. '||||' .. now_us .. '|'
    .. new.tail
  local line = number .. '|' .. record

  call('XADD', EVENTS, next .. '-0', 'type', 'place', 'time', now_us, 'orders', line, 'fills', '',
    'levels', level .. '=' .. new_total)
  call('HSET', BOOK, 'sequence', next, 'time', now_us, level, new_total,
    open_field, text((open_orders or 0) + 1), number, record)
  if new.side == 'buy' then
    call('ZADD', BIDS, '-' .. price, number)
  else
    call('ZADD', ASKS, price, number)
  end
  call('ZADD', OWNERS, 0, client .. '|' .. number)
  if new.client_order_id ~= '' then
    call('HSET', CLIENT_ORDER_IDS, client .. '|' .. new.client_order_id, number)
  end
  if new.expires ~= '' then
    call('ZADD', EXPIRIES, new.expires, number)
  end
  state.sequence, state.next = sequence, next
  remember_use(state)
  return { 'accepted', next, now_us, line, '' }
end

-- Whether the order may be filled by plain makers alone (filling.lua), as far as that is known
-- without them: it crosses, no stop waits, and it has nothing that makes it special.
local function may_fill_at_once(best_score, state)
  local price = new.price ~= '' and tonumber(new.price) or math.huge
  local limit = (new.side == 'sell' and new.price ~= '') and -price or price
  local unlimited = not state.band_bps and not state.max_notional
  return best_score and tonumber(best_score) <= limit and not state.pending
    and (new.kind == 'limit' or (new.kind == 'market' and unlimited))
    and new.client_order_id == '' and new.display == '' and new.post_only == ''
    and (new.expires == '' or new.expires > state.now_us)
end
