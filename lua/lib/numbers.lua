-- Integers as text. `..` and tostring print `%.14g`, which turns 10^15 into 1e+15; '%d' is exact
-- below 2^53, and everything that reaches these functions is.

local format = string.format
local EXACT_LIMIT = 2 ^ 53

local function text(n)
  return format('%d', n)
end
