-- What refuses any command: book_missing, schema_mismatch, book_behind, book_changed, too_late. Is
-- this the book that the caller takes it for: of this layout, made when the caller thinks it was,
-- and not short of anything that was acknowledged? A Redis that went back in time (an old file, a
-- failover) is found by that, before it takes anything new. And does the caller still wait? What
-- lay in the socket of a Redis that stood still must not come true when nobody expects it any more.
--
-- Every script's ARGV begins with 1 `rebuilt` of the book as the caller knows it, or empty; 2 the
-- highest sequence of it that the caller knows to be acknowledged; 3 the time until which the caller
-- waits, µs since 1970 by Redis's clock, or empty.

-- @include keys
-- @include numbers

local SCHEMA = '3'
local FENCED = 'fenced' -- stands in `rebuilt` while the book takes nothing at all

-- The refusal that a book gives to any command. Of its fields `schema`, `sequence` and `rebuilt`,
-- each false where there is none; and `redis_us`, of those who write. Callers learn from what comes
-- with book_changed and too_late.
local function standing_refusal(book)
  local rebuilt = book.rebuilt
  if not book.schema then
    return { 'refused', 'book_missing' }
  end
  if book.schema ~= SCHEMA then
    return { 'refused', 'schema_mismatch' }
  end
  if rebuilt == FENCED then
    return { 'refused', 'book_behind', FENCED }
  end
  if (rebuilt or '') ~= ARGV[1] then
    return { 'refused', 'book_changed', rebuilt or '', text(book.sequence) }
  end
  if book.sequence - ARGV[2] < 0 then
    return { 'refused', 'book_behind' }
  end
  if book.redis_us and ARGV[3] ~= '' and book.redis_us > ARGV[3] then
    return { 'refused', 'too_late', book.redis_us }
  end
end
