-- The writes of one accepted command that every command makes (CMD-1). The event goes first: XADD
-- is the only one that may refuse (an id not above the last, memory full, the append-only file in
-- trouble), and it does so while nothing of the command has been written. Nothing after it can fail.

-- @include keys
-- @include changes

-- The counts after the command: what of them is told as levels, what is zero. Adds the others to
-- `set`.
local function new_counts(set)
  local told, emptied = {}, {}
  local before = #counts > 0 and call('HMGET', BOOK, unpack(counts))
  for i, field in ipairs(counts) do
    local value = text((before[i] or 0) + changed[field])
    if value == '0' then
      emptied[#emptied + 1] = field
    else
      set[#set + 1], set[#set + 2] = field, value
    end
    if field:sub(4, 4) == ':' then -- bid: or ask:
      told[#told + 1] = field .. '=' .. value
    end
  end
  return table.concat(told, ' '), emptied
end

-- Appends the event, as app/domain/events.py reads it, and stores orders, sequence, clock, counts,
-- and the last price if the command traded. `detail` is for events that tell more than that.
local function commit(state, kind, last_price, detail)
  local set = records
  set[#set + 1], set[#set + 2] = 'sequence', state.next
  if not state.is_stored then
    set[#set + 1], set[#set + 2] = 'time', state.now_us
    state.is_stored = true
  end
  if last_price then
    set[#set + 1], set[#set + 2] = 'last', last_price
    state.last = tonumber(last_price)
  end
  local levels, emptied = new_counts(set)
  local orders, told = table.concat(lines, '\n'), table.concat(fills, ' ')
  if detail then
    call('XADD', EVENTS, state.next .. '-0', 'type', kind, 'time', state.now_us,
      'orders', orders, 'fills', told, 'levels', levels, 'detail', detail)
  else
    call('XADD', EVENTS, state.next .. '-0', 'type', kind, 'time', state.now_us,
      'orders', orders, 'fills', told, 'levels', levels)
  end
  call('HSET', BOOK, unpack(set))
  if #emptied > 0 then
    call('HDEL', BOOK, unpack(emptied))
  end
  state.sequence = state.sequence + 1
end
