-- Places and cancels orders, one after the other. A new order trades against the other side of the
-- book, best price first and first come first at equal price, each trade at the resting order's
-- price, and rests what may rest; stops that its trades trigger are carried out after it. A cancel
-- takes an open order or a pending stop out of the book. RULES.md says the rest.
--
-- Guarantee: atomic, and nothing of a command is written unless everything is. An accepted command
-- takes one sequence and appends one event; a refused one changes nothing, and its idempotency key
-- stays free. Several in one call are what they would be in as many calls, at the same time.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     1 to 3 as lib/standing.lua says   4 time to live of idempotency keys, seconds; then of
--          each command either
--          0 place   1 side buy|sell   2 what a plain order (lib/new.lua) may do: rest|take|both,
--          empty for others   3 price in ticks, empty for market and stop
--          4 quantity in lots   5 client id   6 client order id or empty
--          7 client id|idempotency key, or empty without a key   8 fingerprint of the payload
--          9 its record from client id on (lib/record.lua)
--          or
--          0 cancel   1 order number, 14 digits, or empty   2 where it is: client|client order id
--          3 reason, as the order's `reason` will say
-- Returns  a list, for each command in turn
--          {'accepted', sequence, time in µs, number|record, fills}; of a cancel without fills
--          {'replayed', number}: the key was used for this payload; the answer is event `number`
--          {'refused', code}
--          It is shorter than the commands where these met many makers: the rest were not looked at.
-- Refuses  in this order (CMD-3): book_missing, schema_mismatch, book_behind, book_changed,
--          too_late; new orders idempotency_key_reused, backlog_full, instrument_halted,
--          cancel_only, kill_switch, expires_in_past, duplicate_client_order_id, risk_limit,
--          price_band, triggers_outstanding, stop_would_trigger, post_only_would_cross, risk_limit
--          (of a market order), level_quantity_overflow; cancels order_not_found (Redis holds no
--          such order; Postgres may, if it is over), order_not_open, instrument_halted

-- @include keys
-- @include standing
-- @include state
-- @include new
-- @include entering
-- @include cancelling

local MOST_MET = 100 -- makers met by one call before it leaves its further commands to the next

local state, answers, at = read_state(), {}, 5
local refusal = standing_refusal(state)
while at <= #ARGV and state.met <= MOST_MET do
  local answer = refusal
  if ARGV[at] == 'place' then
    read_new(at)
    answer = answer or enter(state)
    at = at + 1 + NEW_WIDTH
  else
    answer = answer or cancel(state, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
    at = at + 1 + CANCEL_WIDTH
  end
  answers[#answers + 1] = answer
end
return answers
