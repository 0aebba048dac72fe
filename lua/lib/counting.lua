-- Counts, while the command that changes them is being decided.

-- @include keys
-- @include changes

-- What a count is with the changes so far.
local function count_now(field)
  return (call('HGET', BOOK, field) or 0) + (changed[field] or 0)
end
