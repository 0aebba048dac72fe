-- Icebergs that have traded all that they showed.

-- @include padding
-- @include counting

-- Shows the next part of an iceberg, behind all others at its price (ICE-2). MAT-8 leaves room for
-- at least what has just been traded.
local function refill(met, queue, maker, level)
  local room = EXACT_LIMIT - 1 - count_now(level)
  local shown = math.min(maker.display, maker.quantity - maker.filled, room)
  met.refills = met.refills + 1
  maker.displayed, maker.moved, maker.met = text(shown), true, true
  -- PLC-2
  maker.priority = padded(met.place) .. format('.%04d', met.refills)
  count(level, shown)
  queue.refilled[#queue.refilled + 1] = maker
end
