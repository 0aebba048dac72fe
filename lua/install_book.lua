-- Puts a book that was built beside the present one in its place, all keys at once. What there was
-- is gone then; keys that the new book has not are gone, too.
--
-- Guarantee: atomic: whoever asks for the book finds the one or the other, whole. A book that has
-- gone on since the caller looked at it stays.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them; then those of the book that was
--          built, in the same order
-- ARGV     1 the highest sequence of a present book that may be replaced; 0 where there was none
-- Returns  {'installed'}
--          {'refused', code}
-- Refuses  in this order: book_missing (nothing was built), book_changed (the present one is beyond
--          ARGV 1)

-- @include keys

local count = #KEYS / 2
if call('EXISTS', KEYS[count + 1]) == 0 then
  return { 'refused', 'book_missing' }
end
local sequence = call('HGET', BOOK, 'sequence')
if sequence and sequence - ARGV[1] > 0 then
  return { 'refused', 'book_changed' }
end
-- Neither of these can be refused for want of memory: nothing is left half done.
for i = 1, count do
  call('UNLINK', KEYS[i])
  if call('EXISTS', KEYS[count + i]) == 1 then
    call('RENAME', KEYS[count + i], KEYS[i])
  end
end
return { 'installed' }
