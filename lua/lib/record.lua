-- An order's record: the text under its number in the orders hash, fields joined by `|`.
-- app/domain/orders.py RECORD_FIELDS names them; the ten that change come first, and the rest, the
-- tail, is carried along as it is.
--
--   status|reason|quantity|filled|notional|price|displayed|priority|sequence|updated|tail
--   tail: created|client|client order id|side|type|time in force|post only|stop price|display
--         quantity|expires|self-trade prevention|idempotency key
--
-- `priority` is empty while the order stands where it first came to rest; `sequence` and `updated`
-- are empty while nothing has changed since it was placed.

-- quantity, filled, notional, price|displayed|priority, tail, client, client order id
local RECORD = '^[^|]*|[^|]*|(%d+)|(%d+)|(%d+)|([^|]*|[^|]*|[^|]*)|[^|]*|[^|]*|'
  .. '(%d+|([^|]*)|([^|]*)|.*)$'

local function record_text(status, reason, quantity, filled, notional, placing, touched, tail)
  return status .. '|' .. reason .. '|' .. quantity .. '|' .. filled .. '|' .. notional .. '|'
    .. placing .. '|' .. touched .. '|' .. tail
end
