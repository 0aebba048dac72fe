-- The book as the commands of one call go on from each other: sequence, clock, last price, and what
-- stays as it is meanwhile. Tables name all their fields from the start: to grow costs more than to
-- make them.

-- @include keys
-- @include clock

-- `next` and `touched` are of the command under way, `met` counts the makers that were met by all.
-- Other fields are the book's, text or false, but for `sequence`.
local function read_state()
  local schema, sequence, last_us, status, suspended, committed, last, band_bps, max_lots,
    max_notional, max_open, generation, pending = unpack(call('HMGET', BOOK, 'schema', 'sequence',
      'time', 'status', 'suspended', 'committed', 'last', 'price_band_bps', 'max_order_lots',
      'max_order_notional', 'max_open_orders', 'idempotency_generation', 'pending'))
  return {
    schema = schema, sequence = tonumber(sequence), now_us = clock_us(last_us), status = status,
    suspended = suspended, committed = committed, last = last, band_bps = band_bps,
    max_lots = max_lots, max_notional = max_notional, max_open = max_open,
    generation = generation, pending = pending, next = '', touched = '', met = 0,
  }
end
