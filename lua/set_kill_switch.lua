-- Turns a client's kill switch on or off (RSK-4): new orders and amends are refused while it is on.
--
-- Guarantee: atomic; takes one sequence and appends one event; holds from the next command on.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     1 to 3 as lib/standing.lua says   4 client id   5 1 for on, empty for off
-- Returns  {'accepted', sequence, time in µs}
--          {'refused', code}
-- Refuses  in this order: book_missing, schema_mismatch, book_behind, book_changed, too_late

-- @include keys
-- @include standing
-- @include announcing

local client, engaged = ARGV[4], ARGV[5]
local book = glance()
local refusal = standing_refusal(book)
if refusal then
  return refusal
end
local next = announce(book, 'kill_switch', client .. '|' .. engaged)
if engaged == '' then
  call('HDEL', BOOK, 'killed:' .. client)
else
  call('HSET', BOOK, 'killed:' .. client, engaged)
end
return { 'accepted', next, book.now_us }
