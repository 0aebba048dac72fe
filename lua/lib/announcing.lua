-- Commands that change no order: an event that says what they set.

-- @include keys
-- @include numbers

-- Appends the event and stores sequence and clock; returns the sequence.
local function announce(sequence, now_us, kind, detail)
  local next = text(sequence + 1)
  call('XADD', EVENTS, next .. '-0', 'type', kind, 'time', now_us, 'orders', '', 'fills', '',
    'levels', '', 'detail', detail)
  call('HSET', BOOK, 'sequence', next, 'time', now_us)
  return next
end
