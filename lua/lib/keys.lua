-- Names for KEYS: every script takes an instrument's keys in the order of app/engine/keys.py.
-- `call` is a local since a script makes a dozen calls, and each would look it up in two tables.

local BOOK, BIDS, ASKS, ORDERS, OWNERS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local CLIENT_ORDER_IDS, EVENTS = KEYS[6], KEYS[9]
local call = redis.call
