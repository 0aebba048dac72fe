-- The exact sum of price x quantity over an order's fills, from which its average price comes.
-- Both factors are below 2^53, so the product may need 32 digits: small ones are multiplied as they
-- are, the others in limbs of seven decimal digits, whose products stay exact.

-- @include numbers

local LIMB = 1e7

-- The three limbs of a number below 10^21, least significant first.
local function limbs(n)
  local first = n % LIMB
  local second = (n - first) / LIMB % LIMB
  return first, second, (n - second * LIMB - first) / LIMB / LIMB
end

-- The limb of a sum, and what it carries to the next.
local function carry(sum)
  local limb = sum % LIMB
  return limb, (sum - limb) / LIMB
end

-- `total` (text) + price * quantity (below 2^53, numbers or text), as text.
local function add_product(total, price, quantity)
  local product = total + price * quantity
  if product < EXACT_LIMIT then
    return text(product)
  end
  local p1, p2, p3 = limbs(price)
  local q1, q2, q3 = limbs(quantity)
  local t1, t2 = tonumber(total:sub(-7)), tonumber(total:sub(-14, -8)) or 0
  local t3, t4 = tonumber(total:sub(-21, -15)) or 0, tonumber(total:sub(-28, -22)) or 0
  local t5, left = tonumber(total:sub(1, -29)) or 0
  t1, left = carry(t1 + p1 * q1)
  t2, left = carry(t2 + p1 * q2 + p2 * q1 + left)
  t3, left = carry(t3 + p1 * q3 + p2 * q2 + p3 * q1 + left)
  t4, left = carry(t4 + p2 * q3 + p3 * q2 + left)
  return (format('%d%07d%07d%07d%07d', t5 + p3 * q3 + left, t4, t3, t2, t1):gsub('^0+', ''))
end
