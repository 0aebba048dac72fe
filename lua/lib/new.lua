-- The order that is being placed, of those in ARGV; place_order.lua says what its fields are.

local WIDTH = 13 -- arguments of one order
local new = {
  side = '', kind = '', time_in_force = '', price = '', lots = '', client = '',
  client_order_id = '', use = '', fingerprint = '', display = '', expires = '', tail = '',
  post_only = '',
}

-- Reads the order whose arguments come after ARGV `at`.
local function read_new(at)
  new.side, new.kind, new.time_in_force, new.price, new.lots, new.client, new.client_order_id,
    new.use, new.fingerprint, new.display, new.expires, new.tail, new.post_only =
    unpack(ARGV, at + 1, at + WIDTH)
end
