-- What becomes of an order once its matching is decided: it rests, waits as a stop, or is over.
-- Counts and event come first, then the sorted sets and indexes; both makers and the order itself.

-- @include keys
-- @include sides
-- @include order
-- @include changing
-- @include counting
-- @include ending
-- @include commit

local PENDS = { makers = {}, pends = true, enters = true } -- a stop with a stop price that is new
local MOVES = { makers = {}, pends = true } -- a stop that goes behind others of its stop price
local KEEPS = { makers = {}, keeps = true } -- it stays where it is
local OVER = { makers = {} } -- it met nobody, and is over

-- Takes note of what a resting order adds to its level: false where that would not stay exact
-- (MAT-8). It shows the lesser of its display quantity and what remains (ICE-1).
local function rest_at_level(order)
  local own = sides_of(order.side)
  local level, shown = own.level .. order.price, order.quantity - order.filled
  if order.display ~= '' then
    shown = math.min(order.display, shown)
    order.displayed = text(shown)
  end
  if count_now(level) + shown >= EXACT_LIMIT then
    return false
  end
  count(level, shown)
  return true
end

-- Puts a new order into the indexes by client and by expiry.
local function join_indexes(order)
  call('ZADD', OWNERS, 0, order.client .. '|' .. order.number)
  if order.client_order_id ~= '' then
    call('HSET', CLIENT_ORDER_IDS, order.client .. '|' .. order.client_order_id, order.number)
  end
  if order.expires ~= '' then
    call('ZADD', EXPIRIES, order.expires, order.number)
  end
end

-- Takes makers that are over out of side `key`, and puts refilled icebergs into their new places.
local function move_makers(makers, key)
  local leaving, joining = {}, {}
  for _, maker in ipairs(makers) do
    local stays = OPEN[maker.status]
    if maker.moved or not stays then
      leaving[#leaving + 1] = maker.member
    end
    if maker.moved and stays then
      joining[#joining + 1], joining[#joining + 2] = maker.score, member_of(maker)
    end
  end
  if #leaving > 0 then
    call('ZREM', key, unpack(leaving))
  end
  if #joining > 0 then
    call('ZADD', key, unpack(joining))
  end
  leave_indexes(makers)
end

-- Puts the order where it belongs now, and into the indexes if it is new there.
local function settle(order, met)
  local own = sides_of(order.side)
  if met.rests then
    call('ZADD', own.key, own.sign * order.price, member_of(order))
  elseif met.pends then
    call('ZADD', own.stops, own.stop_sign * order.stop_price, member_of(order))
    if met.enters then -- nothing waits (STP-7), so these are stale if they are there
      call('HDEL', BOOK, 'trigger_low', 'trigger_high')
    end
  end
  if order.listed and not OPEN[order.status] then
    leave_indexes({ order })
  elseif not order.listed and (met.rests or met.pends) then
    join_indexes(order)
  end
end

-- Books what was decided about an order, `met` as of matching.lua or one of the above. An order
-- that is `listed` was open before. Returns a refusal, with nothing written, where its level is
-- full. `detail` as of commit.
local function conclude(state, kind, order, met, detail)
  local stays = met.rests or met.pends or met.keeps
  if met.rests and not rest_at_level(order) then
    return { 'refused', 'level_quantity_overflow' }
  end
  if order.listed and not stays then
    end_order(order, order.status, order.reason)
  elseif stays and not order.listed then
    count('open:' .. order.client, 1)
  end
  change_order(order, order.listed and state.touched or '|')
  for _, maker in ipairs(met.makers) do
    change_order(maker, state.touched)
  end
  commit(state, kind, met.last_price, detail)
  if #met.makers > 0 then
    local _, other = sides_of(order.side)
    move_makers(met.makers, other.key)
  end
  settle(order, met)
end
