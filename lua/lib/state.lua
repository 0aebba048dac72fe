-- The layout's version, and the answers that every command shares.

local SCHEMA = '1'

-- The refusal that a book in state `schema` (the book's field, or false) gives to any command.
local function schema_refusal(schema)
  if not schema then
    return { 'refused', 'book_missing' }
  end
  if schema ~= SCHEMA then
    return { 'refused', 'schema_mismatch' }
  end
end
