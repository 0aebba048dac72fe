-- Sequences as order numbers and places have them: 14 digits, so that text sorts as numbers do, and
-- who comes first stands first (PLC-1).

-- @include numbers

local function padded(sequence)
  return format('%014d', sequence)
end
