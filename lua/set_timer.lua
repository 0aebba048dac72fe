-- Arms a client's cancel-after timer anew, or disarms it (CXL-4).
--
-- Guarantee: atomic; takes one sequence and appends one event.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     1 to 3 as lib/standing.lua says   4 client id   5 timeout in µs, 0 to disarm
-- Returns  {'accepted', sequence, time in µs, time when due in µs, or empty}
--          {'refused', code}
-- Refuses  in this order: book_missing, schema_mismatch, book_behind, book_changed, too_late,
--          timer_due

-- @include keys
-- @include standing
-- @include announcing

local client, timeout_us = ARGV[4], tonumber(ARGV[5])
local book = glance()
local refusal = standing_refusal(book)
if refusal then
  return refusal
end
local now_us, armed_us = book.now_us, call('ZSCORE', TIMERS, client)
if armed_us and now_us - armed_us >= 0 then
  return { 'refused', 'timer_due' }
end
local due_us = timeout_us > 0 and text(now_us + timeout_us) or ''
local next = announce(book, 'cancel_after', client .. '|' .. due_us)
if due_us == '' then
  call('ZREM', TIMERS, client)
else
  call('ZADD', TIMERS, due_us, client)
end
return { 'accepted', next, now_us, due_us }
