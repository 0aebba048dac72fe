-- Whether a book takes anything new at all. Cancels pass regardless.

-- @include keys

local MAX_BACKLOG = 1000000 -- entries of the stream (some 300 MB) beyond which no order is taken

-- The refusal of whatever is new: when the stream is full, since Postgres is too far behind, or when
-- the persister has suspended the book (`suspended` is its reason, or false).
local function intake_refusal(suspended)
  if call('XLEN', EVENTS) > MAX_BACKLOG then
    return { 'refused', 'backlog_full' }
  end
  if suspended then
    return { 'refused', 'instrument_halted' }
  end
end
