-- What is due by the clock: expiries of orders and timers of clients.

-- @include keys
-- @include closing
-- @include owners

local MAX_EXPIRIES = 250 -- orders that one command expires (EXP-3)
local NO_ORDER = ('0'):rep(14)

-- Members of a sorted set of times that are due, with their times, the most overdue first.
local function due(key, now_us, most)
  return call('ZRANGEBYSCORE', key, '-inf', now_us, 'WITHSCORES', 'LIMIT', 0, most)
end

-- Expires the orders that are due, in one command (EXP-3).
local function expire_due(state)
  local found, numbers = due(EXPIRIES, state.now_us, MAX_EXPIRIES), {}
  for i = 1, #found, 2 do
    numbers[#numbers + 1] = found[i]
  end
  if #numbers > 0 then
    close_orders(state, 'expire', read_orders(numbers), 'expired', 'expired')
  end
end

-- Cancels the orders of the client whose timer is the most overdue, in one command (CXL-4). The
-- timer stays while it has more.
local function fire_timer(state)
  local client, due_us = unpack(due(TIMERS, state.now_us, 1))
  if not client then
    return
  end
  local numbers, more = open_numbers(client, NO_ORDER)
  local detail = client .. '|' .. (more and text(due_us) or '')
  close_orders(state, 'cancel_after', read_orders(numbers), 'cancelled', 'cancel_after', detail)
  if not more then
    call('ZREM', TIMERS, client)
  end
end

local function anything_due(now_us)
  return #due(EXPIRIES, now_us, 1) + #due(TIMERS, now_us, 1) > 0
end
