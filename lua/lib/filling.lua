-- The usual taker: a few plain makers of other clients fill it whole. Kept apart from matching.lua,
-- which does the same for every order, since with so much less to define it takes a third less time.
-- Whatever is not certain at a glance is left to that.

-- @include keys
-- @include padding
-- @include record
-- @include changes
-- @include commit
-- @include idempotency

local STEPS = { 0, 2, 8 } -- index of the last maker that is read with each step; most need one

local PLAIN = '^[^|]*|[^|]*|(%d+)|(%d+)|(%d+)|(%d+)||([^|]*)|[^|]*|[^|]*|(%d+|([^|]*)|([^|]*)||.*)$'

local members, owners, owners_ids -- of makers that are filled
local last_price -- of the fills so far

-- Gathers what one maker gives an order that has `left` lots to go; returns what it has then, and
-- what it pays in all. Nil where the maker is not plain: an iceberg, one that expires, of the same
-- client.
local function fill_from(state, member, record, left, worth)
  local quantity, filled, notional, price, priority, tail, owner, owners_id = record:match(PLAIN)
  if not quantity or owner == new.client then
    return nil
  end
  local maker, open = member:sub(-14), quantity - filled
  local traded = open < left and open or left
  notional, worth = notional + price * traded, worth + price * traded
  if notional >= EXACT_LIMIT or worth >= EXACT_LIMIT then
    return nil
  end
  record = record_text(traded == open and 'filled' or 'partially_filled', '', quantity,
    text(filled + traded), text(notional), price, '', priority, state.touched, tail)
  records[#records + 1], records[#records + 2] = maker, record
  lines[#lines + 1] = maker .. '|' .. record
  fills[#fills + 1] = maker .. ',' .. price .. ',' .. text(traded)
  count((new.side == 'buy' and 'ask:' or 'bid:') .. price, -traded)
  if traded == open then
    count('open:' .. owner, -1)
    members[#members + 1], owners[#owners + 1] = member, owner .. '|' .. maker
    if owners_id ~= '' then
      owners_ids[#owners_ids + 1] = owner .. '|' .. owners_id
    end
  end
  last_price = price
  return left - traded, worth
end

-- Gathers what the best makers give the order; returns what it pays, or nil where they do not
-- suffice.
local function fill_from_best(state, key, best)
  local entries, left, worth = best, new.quantity, 0
  for step, last in ipairs(STEPS) do
    if step > 1 then
      entries = call('ZRANGE', key, STEPS[step - 1] + 1, last, 'WITHSCORES')
    end
    local numbers = {}
    for i = 1, #entries, 2 do
      if tonumber(entries[i + 1]) > new.limit then
        break
      end
      numbers[#numbers + 1] = entries[i]:sub(-14)
    end
    if #numbers == 0 then
      return nil
    end
    for i, record in ipairs(call('HMGET', BOOK, unpack(numbers))) do
      left, worth = fill_from(state, entries[2 * i - 1], record, left, worth)
      if not left or left == 0 then
        return left and worth
      end
    end
  end
end

-- Fills it and answers; nil, with nothing done, where plain makers do not suffice.
local function fill(state, best)
  local key = new.side == 'buy' and ASKS or BIDS
  local number = padded(state.sequence + 1)
  begin(state)
  records, lines, members, owners, owners_ids = { number, '' }, { '' }, {}, {}, {}
  local worth = fill_from_best(state, key, best)
  if not worth then
    return nil
  end
  records[2] = record_text('filled', '', new.lots, new.lots, text(worth), new.price, '', '', '|',
    state.now_us .. '|' .. new.tail)
  lines[1] = number .. '|' .. records[2]
  commit(state, 'place', last_price, new.detail)
  if #members > 0 then
    call('ZREM', key, unpack(members))
    call('ZREM', OWNERS, unpack(owners))
  end
  if #owners_ids > 0 then
    call('HDEL', CLIENT_ORDER_IDS, unpack(owners_ids))
  end
  remember_use(state)
  state.met = state.met + #fills
  return { 'accepted', state.next, state.now_us, lines[1], table.concat(fills, ' ') }
end
