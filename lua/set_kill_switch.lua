-- Turns a client's kill switch on or off (RSK-4): new orders and amends are refused while it is on.
--
-- Guarantee: atomic; takes one sequence and appends one event; holds from the next command on.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     1 rebuilt   2 floor (lib/standing.lua)   3 client id   4 1 for on, empty for off
-- Returns  {'accepted', sequence, time in µs}
--          {'refused', code}
-- Refuses  in this order: book_missing, schema_mismatch, book_behind, book_changed

-- @include keys
-- @include standing
-- @include clock
-- @include announcing

local client, engaged = ARGV[3], ARGV[4]
local schema, sequence, last_us, rebuilt =
  unpack(call('HMGET', BOOK, 'schema', 'sequence', 'time', 'rebuilt'))
local refusal = standing_refusal(schema, sequence, rebuilt)
if refusal then
  return refusal
end
local now_us = clock_us(last_us)
local next = announce(sequence, now_us, 'kill_switch', client .. '|' .. engaged)
if engaged == '' then
  call('HDEL', BOOK, 'killed:' .. client)
else
  call('HSET', BOOK, 'killed:' .. client, engaged)
end
return { 'accepted', next, now_us }
