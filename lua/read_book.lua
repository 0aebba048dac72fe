-- Reads the best levels of both sides, and the sequence they belong to.
--
-- Guarantee: one moment of the book; writes nothing. Cost grows with the levels asked for, not with
-- the orders that rest at them.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     1 to 3 as lib/standing.lua says   4 how many levels of each side, at least 1
-- Returns  {'read', sequence, bids, asks}; a side is {ticks, lots, orders, …}, best level first
--          {'refused', code}
-- Refuses  in this order: book_missing, schema_mismatch, book_behind, book_changed, too_late

-- @include keys
-- @include standing
-- @include numbers

-- Scores and order counts of the best `count` levels, each found by a jump past the one before.
local function walk(key, count)
  local scores, orders = {}, {}
  local entry = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  while entry[2] and #scores < count do
    local score = text(entry[2])
    scores[#scores + 1] = score
    orders[#orders + 1] = call('ZCOUNT', key, score, score)
    entry = call('ZRANGEBYSCORE', key, '(' .. score, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  end
  return scores, orders
end

local function side(key, prefix, count)
  local scores, orders = walk(key, count)
  local fields, out = {}, {}
  for i, score in ipairs(scores) do
    fields[i] = prefix .. text(math.abs(score))
  end
  local totals = #fields > 0 and call('HMGET', BOOK, unpack(fields)) or {}
  for i, score in ipairs(scores) do
    out[3 * i - 2], out[3 * i - 1], out[3 * i] = text(math.abs(score)), totals[i], orders[i]
  end
  return out
end

local schema, sequence, rebuilt = unpack(call('HMGET', BOOK, 'schema', 'sequence', 'rebuilt'))
local refusal = standing_refusal({ schema = schema, sequence = sequence, rebuilt = rebuilt })
if refusal then
  return refusal
end
local count = tonumber(ARGV[4])
return { 'read', sequence, side(BIDS, 'bid:', count), side(ASKS, 'ask:', count) }
