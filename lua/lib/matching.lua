-- Which makers an order meets, and what becomes of both. Reads only; what changes is gathered in
-- changes.lua, and what comes of it is decided afterwards.

-- @include keys
-- @include sides
-- @include order
-- @include changing
-- @include ending
-- @include notional

-- A maker is an order as of order.lua with the fields that matching needs, and `member` and
-- `score` as it lies in its side's sorted set. Tables here name all their fields from the start,
-- since to grow costs more than to make them.

local MAX_FILLS = 250 -- makers met per command (MAT-4)
local FIRST_CHUNK, MAX_CHUNK = 8, 256 -- makers read at a time; most orders meet none or few

-- The makers of a side down to `limit_score`, best first (MAT-1): those of the sorted set, given its
-- best entry, and icebergs that were refilled, behind the others at their price.
local function queue_of(key, best, limit_score)
  return {
    key = key, limit_score = limit_score, entries = best, at = 1, read = 1, size = FIRST_CHUNK,
    records = false, refilled = {}, refilled_at = 1, beyond = false,
  }
end

-- Score of the sorted set's next entry; nil at its end.
local function next_score(queue)
  if queue.at > #queue.entries and #queue.entries > 0 then
    queue.entries = call('ZRANGE', queue.key, queue.read, queue.read + queue.size - 1, 'WITHSCORES')
    queue.read, queue.at, queue.records = queue.read + queue.size, 1, false
    queue.size = math.min(queue.size * 4, MAX_CHUNK)
  end
  return tonumber(queue.entries[queue.at + 1])
end

-- Reads the orders of the entries in hand that are within the limit.
local function read_records(queue)
  local numbers = {}
  for i = queue.at, #queue.entries, 2 do
    if tonumber(queue.entries[i + 1]) > queue.limit_score then
      break
    end
    numbers[#numbers + 1] = queue.entries[i]:sub(-14)
  end
  queue.records = call('HMGET', BOOK, unpack(numbers))
end

local MAKER = '^([^|]*)|[^|]*|(%d+)|(%d+)|(%d+)|(%d*)|(%d*)|([^|]*)|[^|]*|[^|]*|'
  .. '(%d+|([^|]*)|([^|]*)|(%d*)|(%d*)|.*)$'

local function read_maker(member, score, record)
  local status, quantity, filled, notional, price, displayed, priority, tail, client,
    client_order_id, expires, display = record:match(MAKER)
  return {
    number = member:sub(-14), member = member, score = score, status = status,
    quantity = quantity, filled = filled, notional = notional, price = price,
    displayed = displayed, priority = priority, tail = tail, client = client,
    client_order_id = client_order_id, expires = expires, display = display, reason = '',
  }
end

-- The next maker; nil where there is none, with queue.beyond if there is one beyond the limit.
local function next_maker(queue)
  local score = next_score(queue)
  local refilled = queue.refilled[queue.refilled_at]
  if refilled and (not score or score > refilled.score) then
    queue.refilled_at = queue.refilled_at + 1
    return refilled
  end
  if not score or score > queue.limit_score then
    queue.beyond = score ~= nil
    return nil
  end
  if not queue.records then
    read_records(queue)
  end
  local at = queue.at
  queue.at = at + 2
  return read_maker(queue.entries[at], score, queue.records[(at + 1) / 2])
end

-- Notes that the command met a maker, each once: only a refilled iceberg is met again.
local function touch(met, maker)
  if not maker.met then
    met.makers[#met.makers + 1] = maker
  end
end

-- Trades what the maker shows, at its price (MAT-2). What it hides is shown next, so that it is
-- liquidity, too (ICE-3).
local function trade(met, queue, maker, level)
  local shown = shown_lots(maker)
  local traded = shown < met.left and shown or met.left
  touch(met, maker)
  met.left = met.left - traded
  met.notional = add_product(met.notional, maker.price, traded)
  met.first_price, met.last_price = met.first_price or maker.price, maker.price
  maker.filled = text(maker.filled + traded)
  maker.notional = add_product(maker.notional, maker.price, traded)
  fills[#fills + 1] = maker.number .. ',' .. maker.price .. ',' .. text(traded)
  count(level, -traded)
  if maker.filled == maker.quantity then
    end_order(maker, 'filled', '')
    return
  end
  maker.status = 'partially_filled'
  if maker.displayed ~= '' then
    maker.displayed = text(shown - traded)
    if shown == traded then
      -- @include icebergs
      refill(met, queue, maker, level)
    end
  end
end

-- What a taker does with one maker; false: it goes no further.
local function meet(met, queue, maker, level, now_us)
  if maker.expires ~= '' and maker.expires <= now_us then -- EXP-2
    -- @include withdrawing
    touch(met, maker)
    end_resting(maker, level, 'expired', 'expired')
  elseif met.taker.post_only ~= '' then -- MAT-7
    met.would_cross = true
    return false
  elseif met.taker.prevention ~= '' and met.taker.client == maker.client then
    -- @include prevention
    prevent(met, maker, level)
  else -- also SLF-1
    trade(met, queue, maker, level)
  end
  return met.left > 0 and not met.prevented
end

-- Matches `taker` against the other side from its `best` entry down to `limit_score`, meeting at
-- most `budget` makers. Returns what it met: the makers, lots left, notional, and how it ended.
local function match(state, taker, best, limit_score, budget)
  local _, other = sides_of(taker.side)
  local met = {
    taker = taker, makers = {}, count = 0, refills = 0, left = taker.quantity - taker.filled,
    notional = taker.notional, place = state.sequence + 1,
    all_or_none = taker.time_in_force == 'fok', first_price = false, last_price = false,
    prevented = false, would_cross = false, cut_short = false, beyond = false, rests = false,
  }
  local queue = queue_of(other.key, best, limit_score)
  local going = true
  while going do
    local maker = next_maker(queue)
    if not maker or met.count == budget then
      met.cut_short, met.beyond = maker ~= nil, queue.beyond
      break
    end
    met.count = met.count + 1
    state.met = state.met + 1
    going = meet(met, queue, maker, other.level .. maker.price, state.now_us)
  end
  return met
end
