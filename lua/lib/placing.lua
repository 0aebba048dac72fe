-- What becomes of an order after matching, and how it comes to rest.

-- @include keys
-- @include numbers

-- Status and reason of an order of `quantity` lots with `left` lots unfilled, and whether it rests.
local function outcome(kind, time_in_force, quantity, left, limit_met)
  if left == 0 then
    return 'filled', ''
  elseif limit_met then
    return 'cancelled', 'fill_limit'
  elseif time_in_force == 'fok' then
    return 'cancelled', 'fok_unfilled'
  elseif kind == 'market' then
    return 'cancelled', 'no_liquidity'
  elseif time_in_force == 'ioc' then
    return 'cancelled', 'ioc_remainder'
  end
  return left < quantity and 'partially_filled' or 'open', '', true
end

-- The part of a new order's record that never changes; see record.lua.
local function new_tail(now_us, client, client_order_id, side, kind, time_in_force, post_only, key)
  return now_us .. '|' .. client .. '|' .. client_order_id .. '|' .. side .. '|' .. kind .. '|'
    .. time_in_force .. '|' .. post_only .. '|||||' .. key
end

-- Puts an order at the end of the queue at its price, and into the indexes by client.
local function rest_order(key, score, number, client, client_order_id)
  call('ZADD', key, score, number)
  call('ZADD', OWNERS, 0, client .. '|' .. number)
  if client_order_id ~= '' then
    call('HSET', CLIENT_ORDER_IDS, client .. '|' .. client_order_id, number)
  end
end

-- An order's number: its sequence in 14 digits, so that members of equal score sort by arrival.
local function padded(sequence)
  return format('%014d', sequence)
end
