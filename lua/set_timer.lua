-- Arms a client's cancel-after timer anew, or disarms it (CXL-4).
--
-- Guarantee: atomic; takes one sequence and appends one event.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     1 rebuilt   2 floor (lib/standing.lua)   3 client id   4 timeout in µs, 0 to disarm
-- Returns  {'accepted', sequence, time in µs, time when due in µs, or empty}
--          {'refused', code}
-- Refuses  in this order: book_missing, schema_mismatch, book_behind, book_changed, timer_due

-- @include keys
-- @include standing
-- @include clock
-- @include announcing

local client, timeout_us = ARGV[3], tonumber(ARGV[4])
local schema, sequence, last_us, rebuilt =
  unpack(call('HMGET', BOOK, 'schema', 'sequence', 'time', 'rebuilt'))
local refusal = standing_refusal(schema, sequence, rebuilt)
if refusal then
  return refusal
end
local now_us, armed_us = clock_us(last_us), call('ZSCORE', TIMERS, client)
if armed_us and now_us - armed_us >= 0 then
  return { 'refused', 'timer_due' }
end
local due_us = timeout_us > 0 and text(now_us + timeout_us) or ''
local next = announce(sequence, now_us, 'cancel_after', client .. '|' .. due_us)
if due_us == '' then
  call('ZREM', TIMERS, client)
else
  call('ZADD', TIMERS, due_us, client)
end
return { 'accepted', next, now_us, due_us }
