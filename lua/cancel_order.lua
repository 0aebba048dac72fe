-- Cancels a resting order: takes it out of the book; what was filled stays filled.
--
-- Guarantee: atomic; a cancelled order takes one sequence and appends one event; a refused command
-- changes nothing.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     1 order number, 14 digits   2 reason, as the order's `reason` will say
-- Returns  {'accepted', sequence, time in µs, number|record}
--          {'refused', code}
-- Refuses  in this order: book_missing, schema_mismatch, order_not_found (Redis holds no such order;
--          Postgres may, if it is over), order_not_open

-- @include keys
-- @include state
-- @include clock
-- @include numbers
-- @include sides
-- @include record
-- @include commit

local number, reason = ARGV[1], ARGV[2]
local book = call('HMGET', BOOK, 'schema', 'sequence', 'time')
local refusal = schema_refusal(book[1])
if refusal then
  return refusal
end
local record = call('HGET', ORDERS, number)
if not record then
  return { 'refused', 'order_not_found' }
end
local status = record:match('^[^|]+')
if status ~= 'open' and status ~= 'partially_filled' then
  return { 'refused', 'order_not_open' }
end
local quantity, filled, notional, placing, tail, client, client_order_id = record:match(RECORD)
local price, priority = placing:match('^(%d+)|%d*|(%d*)$')
local side = sides_of(tail:match('^%d+|[^|]*|[^|]*|(%a+)|'))

local now_us, sequence = clock_us(book[3]), text(book[2] + 1)
local level = side.level .. price
local levels = { level, text(call('HGET', BOOK, level) - (quantity - filled)) }
record = record_text('cancelled', reason, quantity, filled, notional, placing,
  sequence .. '|' .. now_us, tail)
local line = number .. '|' .. record

append_event(sequence, 'cancel', now_us, { line }, '', levels)
store_state(sequence, now_us, levels)
call('HSET', ORDERS, number, record)
call('ZREM', side.key, priority == '' and number or priority .. ':' .. number)
call('ZREM', OWNERS, client .. '|' .. number)
if client_order_id ~= '' then
  call('HDEL', CLIENT_ORDER_IDS, client .. '|' .. client_order_id)
end
return { 'accepted', sequence, now_us, line }
