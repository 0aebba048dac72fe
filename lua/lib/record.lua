-- An order's record: the text under its number in the book's hash, fields joined by `|`.
-- app/domain/orders.py RECORD_FIELDS names them; the ten that change come first, and the rest, the
-- tail, is carried along as it is, but for the price of an amended stop.
--
--   status|reason|quantity|filled|notional|price|displayed|priority|sequence|updated|tail
--   tail: created|client|client order id|expires|display quantity|self-trade prevention|side|type|
--         time in force|post only|stop price|idempotency key
--
-- `priority` is empty while the order stands where it first came to rest; `sequence` and `updated`
-- are empty while nothing has changed since it was placed; `displayed` is empty but for icebergs.
-- Numbers are whole and below 2^53, but for notional, so that Lua may calculate with them as they
-- are.

local OPEN = { open = true, partially_filled = true, pending = true }

local RECORD = '^([^|]*)|[^|]*|(%d+)|(%d+)|(%d+)|(%d*)|(%d*)|([^|]*)|[^|]*|[^|]*|'
  .. '(%d+|([^|]*)|([^|]*)|(%d*)|(%d*)|([^|]*)|(%a+)|([^|]*)|(%a+)|(1?)|(%d*)|.*)$'

-- `touched` is sequence and time of the last change, joined, or `|` for none.
local function record_text(status, reason, quantity, filled, notional, price, displayed, priority,
  touched, tail)
  return status .. '|' .. reason .. '|' .. quantity .. '|' .. filled .. '|' .. notional .. '|'
    .. price .. '|' .. displayed .. '|' .. priority .. '|' .. touched .. '|' .. tail
end
