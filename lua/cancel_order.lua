-- Cancels a resting order: takes it out of the book; what was filled stays filled.
--
-- Guarantee: atomic; a cancelled order takes one sequence and appends one event; a refused command
-- changes nothing.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     1 order number, 14 digits   2 reason, as the order's `reason` will say
-- Returns  {'accepted', sequence, time in µs, number|record}
--          {'refused', code}
-- Refuses  in this order: book_missing, schema_mismatch, order_not_found (not here: Postgres may
--          know it, if it is over), order_not_open

-- @include keys
-- @include state
-- @include clock
-- @include numbers
-- @include record
-- @include commit

local number, reason = ARGV[1], ARGV[2]
local book = redis.call('HMGET', BOOK, 'schema', 'sequence', 'time')
local refusal = schema_refusal(book[1])
if refusal then
  return refusal
end
local record = redis.call('HGET', ORDERS, number)
if not record then
  return { 'refused', 'order_not_found' }
end
local quantity, filled, notional, placing, tail, client, client_order_id = record:match(RECORD)
local price, priority, side = placing:match('^(%d+)|'), placing:match('(%d*)$'),
  tail:match('^%d+|[^|]*|[^|]*|(%a+)|')
local key, level = BIDS, 'bid:'
if side == 'sell' then
  key, level = ASKS, 'ask:'
end
level = level .. (price or '')
local member = priority == '' and number or priority .. ':' .. number
if not redis.call('ZSCORE', key, member) then
  return { 'refused', 'order_not_open' }
end

local now_us, sequence = clock_us(book[3]), text(book[2] + 1)
local total = redis.call('HGET', BOOK, level) - (quantity - filled)
local levels = { level, text(total) }
record = record_text('cancelled', reason, quantity, filled, notional, placing,
  sequence .. '|' .. now_us, tail)
local line = number .. '|' .. record

append_event(sequence, 'cancel', now_us, line, '', levels)
store_state(sequence, now_us, levels)
redis.call('HSET', ORDERS, number, record)
redis.call('ZREM', key, member)
redis.call('ZREM', OWNERS, client .. '|' .. number)
if client_order_id ~= '' then
  redis.call('HDEL', CLIENT_ORDER_IDS, client .. '|' .. client_order_id)
end
return { 'accepted', sequence, now_us, line }
