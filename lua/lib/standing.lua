-- Refusals of any command: book_missing, schema_mismatch, book_behind, book_changed. They say
-- whether this is the book that the caller takes it for: of this layout, made when the caller
-- thinks it was, and not short of anything that was acknowledged. A Redis that went back in time (an
-- old file, a failover) is found by that, before it takes anything new.
--
-- Every script's ARGV begins with 1 `rebuilt` of the book as the caller knows it, or empty; 2 the
-- highest sequence of it that the caller knows to be acknowledged.

-- @include keys
-- @include numbers

local SCHEMA = '2'
local FENCED = 'fenced' -- stands in `rebuilt` while the book takes nothing at all

-- The refusal that the book gives to any command; the arguments are its fields, or false.
-- `book_changed` comes with `rebuilt` and sequence, for callers to learn from.
local function standing_refusal(schema, sequence, rebuilt)
  if not schema then
    return { 'refused', 'book_missing' }
  end
  if schema ~= SCHEMA then
    return { 'refused', 'schema_mismatch' }
  end
  if rebuilt == FENCED then
    return { 'refused', 'book_behind', FENCED }
  end
  if (rebuilt or '') ~= ARGV[1] then
    return { 'refused', 'book_changed', rebuilt or '', text(sequence) }
  end
  if sequence - ARGV[2] < 0 then
    return { 'refused', 'book_behind' }
  end
end
