-- Orders that a command changes.

-- @include order
-- @include changes

-- Takes note of an order's new state. The command's own order comes first.
local function change_order(order, touched)
  local record = record_of(order, touched)
  records[#records + 1], records[#records + 2] = order.number, record
  lines[#lines + 1] = order.number .. '|' .. record
end
