-- Level totals: lots that rest at each price, in the book hash as `bid:<ticks>` and `ask:<ticks>`.

-- @include keys
-- @include numbers

-- New totals of the levels that `fills` take from, best first: {field, total, field, total, …}.
local function totals_after(fills, prefix)
  if #fills == 0 then
    return {}
  end
  local fields, taken = {}, {}
  for _, fill in ipairs(fills) do
    local field = prefix .. text(fill.price)
    if not taken[field] then
      fields[#fields + 1], taken[field] = field, 0
    end
    taken[field] = taken[field] + fill.traded
  end
  local levels, totals = {}, call('HMGET', BOOK, unpack(fields))
  for i, field in ipairs(fields) do
    levels[2 * i - 1], levels[2 * i] = field, text(totals[i] - taken[field])
  end
  return levels
end
