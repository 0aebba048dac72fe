-- Names for KEYS: every script takes an instrument's keys in the order of app/engine/keys.py.
-- `call` is a local since a script makes a dozen calls, and each would look it up in two tables.

local BOOK, BIDS, ASKS, OWNERS, CLIENT_ORDER_IDS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local EVENTS, BUY_STOPS, SELL_STOPS, EXPIRIES = KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local TIMERS = KEYS[12]
local call = redis.call
