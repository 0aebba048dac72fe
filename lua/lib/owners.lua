-- A client's open orders, oldest first.

-- @include keys

local MAX_CANCELS = 250 -- open orders that one command looks at (CXL-3)

-- Numbers of a client's open orders after number `after`, at most MAX_CANCELS, and whether there
-- are more. No client id has a `|` in it, and `}` is the character after it.
local function open_numbers(client, after)
  local members = call('ZRANGEBYLEX', OWNERS, '(' .. client .. '|' .. after, '(' .. client .. '}',
    'LIMIT', 0, MAX_CANCELS + 1)
  local numbers = {}
  for i = 1, math.min(#members, MAX_CANCELS) do
    numbers[i] = members[i]:sub(-14)
  end
  return numbers, #members > MAX_CANCELS
end
