-- Puts rules in place of those that the book has: status, band, limits, fees (STA-4).
--
-- Guarantee: atomic; takes one sequence and appends one event; holds from the next command on.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     1 to 3 as lib/standing.lua says, then field, value, field, value, …: all of
--          app/domain/rules.py RULE_FIELDS, empty for unset
-- Returns  {'accepted', sequence, time in µs}
--          {'refused', code}
-- Refuses  in this order: book_missing, schema_mismatch, book_behind, book_changed, too_late

-- @include keys
-- @include standing
-- @include announcing

local book = glance()
local refusal = standing_refusal(book)
if refusal then
  return refusal
end
local set, unset, told = {}, {}, {}
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    unset[#unset + 1] = ARGV[i]
  else
    set[#set + 1], set[#set + 2] = ARGV[i], ARGV[i + 1]
    told[#told + 1] = ARGV[i] .. '=' .. ARGV[i + 1]
  end
end
local next = announce(book, 'rules', table.concat(told, ' '))
if #set > 0 then
  call('HSET', BOOK, unpack(set))
end
if #unset > 0 then
  call('HDEL', BOOK, unpack(unset))
end
return { 'accepted', next, book.now_us }
