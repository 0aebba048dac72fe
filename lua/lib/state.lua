-- The book as the commands of one call go on from each other: sequence, clock, last price, and what
-- stays as it is meanwhile. Tables name all their fields from the start: to grow costs more than to
-- make them.

-- @include keys
-- @include clock

local function number(field)
  return field and tonumber(field)
end

-- `next` and `touched` are of the command under way, `met` counts the makers that were met by all.
-- `is_stored`: the time is, by one that was written already. Other fields are the book's, or false;
-- what is calculated with is a number, made once for all.
local function read_state()
  local schema, sequence, last_us, status, suspended, committed, last, band_bps, max_lots,
    max_notional, max_open, generation, pending, rebuilt, crowded = unpack(call('HMGET', BOOK,
      'schema', 'sequence', 'time', 'status', 'suspended', 'committed', 'last', 'price_band_bps',
      'max_order_lots', 'max_order_notional', 'max_open_orders', 'idempotency_generation',
      'pending', 'rebuilt', 'crowded'))
  local now_us, redis_us = clock_us(last_us)
  return {
    schema = schema, sequence = tonumber(sequence), now_us = now_us, redis_us = redis_us,
    is_stored = false, status = status, suspended = suspended,
    committed = number(committed), last = number(last), band_bps = number(band_bps),
    max_lots = number(max_lots), max_notional = max_notional,
    notional_limit = number(max_notional), max_open = number(max_open), generation = generation,
    pending = pending, rebuilt = rebuilt, crowded = crowded, next = '', touched = '', met = 0,
  }
end
