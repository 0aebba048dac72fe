-- The exact sum of price x quantity over an order's fills, from which its average price comes.
-- Both factors are below 2^53, so the product may need 32 digits: small ones are multiplied as they
-- are, the others in limbs of seven decimal digits, whose products stay exact.

-- @include numbers

local LIMB = 1e7

-- Limbs of a decimal integer given as text, least significant first.
local function limbs(digits)
  local out = {}
  for last = #digits, 1, -7 do
    out[#out + 1] = tonumber(digits:sub(math.max(1, last - 6), last))
  end
  return out
end

local function add_product_in_limbs(total, price, quantity)
  local sum, p, q = limbs(total), limbs(text(price)), limbs(text(quantity))
  for i = 1, #p do
    for j = 1, #q do
      sum[i + j - 1] = (sum[i + j - 1] or 0) + p[i] * q[j]
    end
  end
  local carry, i, out = 0, 1, ''
  while sum[i] or carry > 0 do
    local value = (sum[i] or 0) + carry
    carry = math.floor(value / LIMB)
    out = format('%07d', value - carry * LIMB) .. out
    i = i + 1
  end
  return (out:gsub('^0+', ''))
end

-- `total` (text) + price * quantity (numbers below 2^53), as text.
local function add_product(total, price, quantity)
  local sum = tonumber(total) + price * quantity
  if sum < EXACT_LIMIT then
    return text(sum)
  end
  return add_product_in_limbs(total, price, quantity)
end

-- The notional of all fills together, as text.
local function notional_of(fills)
  local total = '0'
  for _, fill in ipairs(fills) do
    total = add_product(total, fill.price, fill.traded)
  end
  return total
end
