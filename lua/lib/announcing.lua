-- Commands that change no order: an event that says what they set.

-- @include keys
-- @include numbers
-- @include clock

-- What such a command needs of the book.
local function glance()
  local schema, sequence, last_us, rebuilt =
    unpack(call('HMGET', BOOK, 'schema', 'sequence', 'time', 'rebuilt'))
  local now_us, redis_us = clock_us(last_us)
  return {
    schema = schema, sequence = sequence, rebuilt = rebuilt, now_us = now_us, redis_us = redis_us,
  }
end

-- Appends the event and stores sequence and clock; returns the sequence.
local function announce(book, kind, detail)
  local next = text(book.sequence + 1)
  call('XADD', EVENTS, next .. '-0', 'type', kind, 'time', book.now_us, 'orders', '', 'fills', '',
    'levels', '', 'detail', detail)
  call('HSET', BOOK, 'sequence', next, 'time', book.now_us)
  return next
end
