-- Places an order: trades it against the other side of the book, best price first and first come
-- first at equal price, each trade at the resting order's price; rests what may rest.
--
-- Guarantee: atomic, and nothing is written unless everything is. An accepted order takes one
-- sequence and appends one event; a refused one changes nothing, and its idempotency key stays free.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     1 side buy|sell   2 type limit|market   3 time in force gtc|ioc|fok
--          4 price in ticks, empty for market   5 quantity in lots   6 post only: 1 or empty
--          7 client id   8 client order id or empty   9 idempotency key or empty
--          10 fingerprint of the payload   11 time to live of the idempotency key, seconds
-- Returns  {'accepted', sequence, time in µs, number|record, fills}
--          {'replayed', number}: the key was used for this payload; the answer is event `number`
--          {'refused', code}
-- Refuses  in this order: book_missing, schema_mismatch, idempotency_key_reused, backlog_full,
--          instrument_halted, duplicate_client_order_id, post_only_would_cross, level_quantity_overflow

-- @include keys
-- @include state
-- @include intake
-- @include clock
-- @include numbers
-- @include sides
-- @include idempotency
-- @include matching
-- @include placing
-- @include makers
-- @include levels
-- @include commit

local side, kind, time_in_force, price, lots = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local post_only, client, client_order_id, key = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local own, other = sides_of(side)
local limit_score = kind == 'market' and math.huge or other.sign * price
local quantity = tonumber(lots)

local book = call('HMGET', BOOK, 'schema', 'sequence', 'time', 'idempotency_generation',
  'idempotency_rotated', own.level .. price, 'suspended')
local refusal = schema_refusal(book[1])
if refusal then
  return refusal
end
local now_us = clock_us(book[3])
local use = key ~= '' and idempotent_use(client, key, now_us, book[4], book[5])
local earlier = use and earlier_use(use)
if earlier then
  return earlier
end
refusal = intake_refusal(book[7])
if refusal then
  return refusal
end
if client_order_id ~= ''
  and call('HEXISTS', CLIENT_ORDER_IDS, client .. '|' .. client_order_id) == 1 then
  return { 'refused', 'duplicate_client_order_id' }
end
local best = call('ZRANGE', other.key, 0, 0, 'WITHSCORES')
if post_only ~= '' and best[2] and tonumber(best[2]) <= limit_score then
  return { 'refused', 'post_only_would_cross' }
end
local fills, left = plan_fills(other.key, best, limit_score, quantity)
local status, reason, rests = outcome(kind, time_in_force, quantity, left, fills.limit_met)
if time_in_force == 'fok' and left > 0 then
  fills, left = {}, quantity
end
local own_total = tonumber(book[6] or 0) + left
if rests and own_total >= EXACT_LIMIT then
  return { 'refused', 'level_quantity_overflow' }
end

local sequence = book[2] + 1
local number = padded(sequence)
sequence = text(sequence)
local levels = totals_after(fills, other.level)
if rests then
  levels[#levels + 1], levels[#levels + 2] = own.level .. price, text(own_total)
end
local tail = new_tail(now_us, client, client_order_id, side, kind, time_in_force, post_only, key)
local record = record_text(status, reason, lots, text(quantity - left), notional_of(fills),
  price .. '||', '|', tail)
local records, lines = { number, record }, { number .. '|' .. record }
local told = settle_makers(fills, sequence .. '|' .. now_us, records, lines)

append_event(sequence, 'place', now_us, lines, told, levels)
store_state(sequence, now_us, levels)
call('HSET', ORDERS, unpack(records))
remove_filled(fills, other.key)
if rests then
  rest_order(own.key, own.sign * price, number, client, client_order_id)
end
if use then
  remember_use(use, sequence)
end
return { 'accepted', sequence, now_us, lines[1], told }
