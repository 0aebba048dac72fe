-- Cancels open orders and pending stops (CXL-1, CXL-2), one after the other; what was filled stays
-- filled.
--
-- Guarantee: atomic; a cancelled order takes one sequence and appends one event; a refused command
-- changes nothing.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     of each order
--          1 order number, 14 digits, or empty   2 where it is: client|client order id
--          3 reason, as the order's `reason` will say
-- Returns  a list, for each order in turn
--          {'accepted', sequence, time in µs, number|record}
--          {'refused', code}
-- Refuses  in this order: book_missing, schema_mismatch, order_not_found (Redis holds no such
--          order; Postgres may, if it is over), order_not_open, instrument_halted

-- @include keys
-- @include schema
-- @include clock
-- @include record
-- @include cancelling

local WIDTH = 3 -- arguments of one order
local schema, sequence, last_us, status =
  unpack(call('HMGET', BOOK, 'schema', 'sequence', 'time', 'status'))
local state = { sequence = tonumber(sequence), now_us = clock_us(last_us), status = status }

local answers = {}
for at = 1, #ARGV, WIDTH do
  answers[#answers + 1] = schema_refusal(schema)
    or cancel(state, ARGV[at], ARGV[at + 1], ARGV[at + 2])
end
return answers
