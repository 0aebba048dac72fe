-- The order that is being placed, of those in ARGV; run_orders.lua says what its fields are. A plain
-- order is a limit or market order without expiry and display quantity. One that is gtc may rest and
-- take makers, one that is post-only only rest, and one that is ioc or fok only take.

local NEW_WIDTH = 9 -- arguments of one order
local new = {
  side = '', plain = '', price = '', lots = '', client = '', client_order_id = '', use = '',
  fingerprint = '', detail = false, tail = '', ticks = 0, quantity = 0, limit = 0,
}

-- Reads the order whose arguments come after ARGV `at`. Of what is made from them, `detail` is the
-- event's: the fingerprint where there is a key; `ticks` is the price, nil without one, and `limit`
-- the score of the other side's entries up to which it trades.
local function read_new(at)
  new.side, new.plain, new.price, new.lots, new.client, new.client_order_id, new.use,
    new.fingerprint, new.tail = unpack(ARGV, at + 1, at + NEW_WIDTH)
  new.detail = new.use ~= '' and new.fingerprint
  new.ticks, new.quantity, new.limit = tonumber(new.price), tonumber(new.lots), math.huge
  if new.ticks then
    new.limit = new.side == 'buy' and new.ticks or -new.ticks
  end
end
