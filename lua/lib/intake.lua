-- Whether a book takes anything new at all; it does unless something speaks against it (STA-1).

local MAX_BACKLOG = 1000000 -- events that Postgres may be behind before nothing new is taken

-- The refusal of a new order or an amendment, whatever it asks for; `killed` is its client's kill
-- switch, or false.
local function intake_refusal(state, killed)
  if state.crowded or state.sequence - (state.committed or 0) > MAX_BACKLOG then
    return { 'refused', 'backlog_full' }
  end
  if state.suspended or state.status == 'halted' then -- STA-3
    return { 'refused', 'instrument_halted' }
  end
  if state.status == 'cancel_only' then -- STA-2
    return { 'refused', 'cancel_only' }
  end
  if killed then -- RSK-4
    return { 'refused', 'kill_switch' }
  end
end
