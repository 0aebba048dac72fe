-- What one command changes, gathered until it is committed: records and lines of orders, fills, and
-- counts of the book hash (level totals, open orders of clients, pending stops), which are never
-- below zero and leave the hash at zero.

-- @include keys
-- @include numbers

local records, lines, fills -- number, record, …; `number|record`; `maker,ticks,lots`
local counts, changed -- fields in the order of their first change; field -> change

-- Starts a command, forgetting what was gathered.
local function begin(state)
  records, lines, fills, counts, changed = {}, {}, {}, {}, {}
  state.next = text(state.sequence + 1)
  state.touched = state.next .. '|' .. state.now_us
end

-- Adds `change` to a count of the book hash; one that does not change is not told.
local function count(field, change)
  local before = changed[field]
  if before then
    changed[field] = before + change
  elseif change ~= 0 then
    counts[#counts + 1], changed[field] = field, change
  end
end
