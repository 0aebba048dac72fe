-- Makes an instrument's book, empty, at sequence 0, unless there is one.
--
-- Guarantee: never touches a book that exists, and makes none where one was lost that the caller
-- knows of.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     1 to 3 as lib/standing.lua says, then the book's rules: field, value, field,
--          value, …; app/domain/rules.py RULE_FIELDS; empty for unset
-- Returns  {'opened', rebuilt} or {'exists'}
--          {'refused', code}
-- Refuses  schema_mismatch, book_behind, book_changed, too_late; book_missing where it was lost

-- @include keys
-- @include standing

local schema, sequence, rebuilt = unpack(call('HMGET', BOOK, 'schema', 'sequence', 'rebuilt'))
if schema then
  return standing_refusal({ schema = schema, sequence = sequence, rebuilt = rebuilt })
    or { 'exists' }
end
if ARGV[2] ~= '0' then
  return { 'refused', 'book_missing' }
end
local now = call('TIME')
rebuilt = now[1] .. string.format('%06d', now[2])
call('HSET', BOOK, 'schema', SCHEMA, 'sequence', 0, 'rebuilt', rebuilt,
  'idempotency_generation', 0, 'idempotency_rotated', rebuilt)
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] ~= '' then
    call('HSET', BOOK, ARGV[i], ARGV[i + 1])
  end
end
return { 'opened', rebuilt }
