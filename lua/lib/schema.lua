-- The layout of the keys, by its version.

local SCHEMA = '2'

-- The refusal that a book of layout `schema` (its field, or false) gives to any command.
local function schema_refusal(schema)
  if not schema then
    return { 'refused', 'book_missing' }
  end
  if schema ~= SCHEMA then
    return { 'refused', 'schema_mismatch' }
  end
end
