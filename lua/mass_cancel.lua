-- Cancels a client's open orders and pending stops, oldest first, as many as one step may (CXL-3).
--
-- Guarantee: atomic; a step that cancels something takes one sequence and appends one event; the
-- caller goes on after the last order that this step looked at.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     1 to 3 as lib/standing.lua says   4 client id   5 side buy|sell, or empty for both
--          6 reason   7 order number, 14 digits: only orders after it
-- Returns  {'cancelled', number|record lines of the cancelled, number to go on after or empty}
--          {'refused', code}
-- Refuses  in this order: book_missing, schema_mismatch, book_behind, book_changed, too_late,
--          instrument_halted

-- @include keys
-- @include standing
-- @include state
-- @include closing
-- @include owners

local client, side, reason, after = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local state = read_state()
local refusal = standing_refusal(state)
if refusal then
  return refusal
end
if state.status == 'halted' then -- STA-3
  return { 'refused', 'instrument_halted' }
end
local numbers, more = open_numbers(client, after)
local chosen = {}
for _, order in ipairs(read_orders(numbers)) do
  if side == '' or order.side == side then
    chosen[#chosen + 1] = order
  end
end
local cancelled = ''
if #chosen > 0 then
  close_orders(state, 'mass_cancel', chosen, 'cancelled', reason)
  cancelled = table.concat(lines, '\n')
end
return { 'cancelled', cancelled, more and numbers[#numbers] or '' }
