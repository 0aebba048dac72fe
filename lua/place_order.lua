-- Places orders, one after the other: each trades against the other side of the book, best price
-- first and first come first at equal price, each trade at the resting order's price, and rests
-- what may rest. RULES.md says the rest. Stops that an order's trades trigger are carried out
-- after it.
--
-- Guarantee: atomic, and nothing of an order is written unless everything is. An accepted order
-- takes one sequence and appends one event; a refused one changes nothing, and its idempotency key
-- stays free. Several orders in one call are what they would be in as many calls, at the same
-- time.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     1 time to live of idempotency keys, seconds; then of each order
--          1 side buy|sell   2 type limit|market|stop|stop_limit   3 time in force gtc|ioc|fok|gtd
--          4 price in ticks, empty for market and stop   5 quantity in lots   6 client id
--          7 client order id or empty   8 client id|idempotency key, or empty without a key
--          9 fingerprint of the payload   10 display quantity in lots or empty
--          11 expiry in µs or empty   12 its record from client id on (lib/record.lua)
--          13 post only: 1 or empty
-- Returns  a list, for each order in turn
--          {'accepted', sequence, time in µs, number|record, fills}
--          {'replayed', number}: the key was used for this payload; the answer is event `number`
--          {'refused', code}
--          It is shorter than the orders where these met many makers: the rest were not looked at.
-- Refuses  in this order (CMD-3): book_missing, schema_mismatch, idempotency_key_reused,
--          backlog_full, instrument_halted, cancel_only, kill_switch, expires_in_past,
--          duplicate_client_order_id,
--          risk_limit, price_band, triggers_outstanding, stop_would_trigger, post_only_would_cross,
--          risk_limit (of a market order), level_quantity_overflow

-- @include keys
-- @include schema
-- @include state
-- @include new
-- @include entering

local MOST_MET = 30 -- makers met by one call before it leaves its further orders to the next

local state, answers = read_state(), {}
for at = 1, #ARGV - WIDTH, WIDTH do
  if state.met > MOST_MET then
    break
  end
  read_new(at)
  answers[#answers + 1] = schema_refusal(state.schema) or enter(state)
end
return answers
