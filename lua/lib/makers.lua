-- What fills do to the makers: their new records, and their leaving the book when nothing is left.

-- @include keys
-- @include numbers
-- @include notional
-- @include record

-- Adds each maker's new record to `records` (number, record, …) and its line to `lines`.
-- Returns the fills as the event tells them.
local function settle_makers(fills, touched, records, lines)
  local told = {}
  for i, fill in ipairs(fills) do
    local status = fill.gone and 'filled' or 'partially_filled'
    local notional = add_product(fill.notional, fill.price, fill.traded)
    local record = record_text(status, '', fill.quantity, text(fill.filled), notional,
      fill.placing, touched, fill.tail)
    records[#records + 1], records[#records + 2] = fill.number, record
    lines[#lines + 1] = fill.number .. '|' .. record
    told[i] = fill.number .. ',' .. text(fill.price) .. ',' .. text(fill.traded)
  end
  return table.concat(told, ' ')
end

-- Takes the makers that are filled out of side `key` and of the indexes by client.
local function remove_filled(fills, key)
  local members, owners, ids = {}, {}, {}
  for _, fill in ipairs(fills) do
    if fill.gone then
      members[#members + 1] = fill.member
      owners[#owners + 1] = fill.client .. '|' .. fill.number
      if fill.client_order_id ~= '' then
        ids[#ids + 1] = fill.client .. '|' .. fill.client_order_id
      end
    end
  end
  if #members > 0 then
    call('ZREM', key, unpack(members))
    call('ZREM', OWNERS, unpack(owners))
  end
  if #ids > 0 then
    call('HDEL', CLIENT_ORDER_IDS, unpack(ids))
  end
end
