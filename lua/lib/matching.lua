-- Which makers an order would trade with. Reads only: what comes of the plan is decided afterwards.

-- @include keys
-- @include record

local MAX_FILLS = 1000 -- per command; what is left of a larger order is cancelled: 'fill_limit'
local FIRST_CHUNK, MAX_CHUNK = 8, 256 -- makers read at a time; most orders meet none or few

-- Appends a fill for each maker of one chunk, best first, while the taker has quantity left.
-- `range` is member, score, member, score, …; returns what is left, and whether to stop.
local function fill_from(range, limit_score, fills, left)
  local numbers = {}
  for i = 1, #range, 2 do
    if tonumber(range[i + 1]) > limit_score then
      break
    end
    numbers[#numbers + 1] = range[i]:sub(-14)
  end
  if #numbers == 0 then
    return left, true
  end
  local records = call('HMGET', ORDERS, unpack(numbers))
  for i, number in ipairs(numbers) do
    if #fills == MAX_FILLS then
      fills.limit_met = true
      return left, true
    end
    local quantity, filled, notional, placing, tail, client, client_order_id =
      records[i]:match(RECORD)
    local open = quantity - filled
    local traded = math.min(open, left)
    left = left - traded
    fills[#fills + 1] = {
      member = range[2 * i - 1], number = number, price = math.abs(range[2 * i]),
      traded = traded, filled = filled + traded, gone = traded == open,
      quantity = quantity, notional = notional, placing = placing, tail = tail,
      client = client, client_order_id = client_order_id,
    }
    if left == 0 then
      return 0, true
    end
  end
  return left, 2 * #numbers < #range
end

-- Fills for `quantity` lots against side `key` down to `limit_score`, given the side's best entry.
-- Returns the list of fills (with limit_met where MAX_FILLS ended it) and the lots left over.
local function plan_fills(key, best, limit_score, quantity)
  local fills, left = {}, quantity
  local range, from, size = best, 0, 1
  local done = #range == 0
  while not done do
    left, done = fill_from(range, limit_score, fills, left)
    if not done then
      from, size = from + size, math.max(FIRST_CHUNK, math.min(size * 4, MAX_CHUNK))
      range = call('ZRANGE', key, from, from + size - 1, 'WITHSCORES')
      done = #range == 0
    end
  end
  return fills, left
end
