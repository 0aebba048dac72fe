-- Makes an instrument's book, empty, at sequence 0, unless there is one.
--
-- Guarantee: never touches a book that exists.
--
-- KEYS     the instrument's, as app/engine/keys.py orders them
-- ARGV     rules: field, value, field, value, …; app/domain/rules.py RULE_FIELDS; empty for unset
-- Returns  {'opened'} or {'exists'}
--          {'refused', code}
-- Refuses  schema_mismatch

-- @include keys
-- @include schema

local schema = call('HGET', BOOK, 'schema')
if schema then
  return schema_refusal(schema) or { 'exists' }
end
call('HSET', BOOK, 'schema', SCHEMA, 'sequence', 0,
  'idempotency_generation', 0, 'idempotency_rotated', call('TIME')[1])
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] ~= '' then
    call('HSET', BOOK, ARGV[i], ARGV[i + 1])
  end
end
return { 'opened' }
