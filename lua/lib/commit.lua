-- The writes of one accepted command. The event goes first: XADD is the only one that may refuse (an
-- id not above the last, memory full, the append-only file in trouble), and it does so while nothing
-- has been written. Nothing after it can fail.

-- @include keys

-- `levels` = {field, total, …} as the event's text.
local function levels_text(levels)
  local out = {}
  for i = 1, #levels, 2 do
    out[#out + 1] = levels[i] .. '=' .. levels[i + 1]
  end
  return table.concat(out, ' ')
end

-- `lines` are the changed orders, `fills` is text already, `levels` {field, total, …}.
-- app/domain/events.py says how the event reads.
local function append_event(sequence, kind, now_us, lines, fills, levels)
  call('XADD', EVENTS, sequence .. '-0', 'type', kind, 'time', now_us,
    'orders', table.concat(lines, '\n'), 'fills', fills, 'levels', levels_text(levels))
end

-- Writes the book's sequence, its time and `levels` = {field, total, …}; drops emptied levels.
local function store_state(sequence, now_us, levels)
  local set, emptied = { 'sequence', sequence, 'time', now_us }, {}
  for i = 1, #levels, 2 do
    if levels[i + 1] == '0' then
      emptied[#emptied + 1] = levels[i]
    else
      set[#set + 1], set[#set + 2] = levels[i], levels[i + 1]
    end
  end
  call('HSET', BOOK, unpack(set))
  if #emptied > 0 then
    call('HDEL', BOOK, unpack(emptied))
  end
end
