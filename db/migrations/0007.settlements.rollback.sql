DROP TABLE IF EXISTS settlement_obligations;
DROP TABLE IF EXISTS settlement_ranges;
DROP TABLE IF EXISTS settlements;
DROP FUNCTION IF EXISTS settlement_that_is_done_balances;
DROP FUNCTION IF EXISTS settlement_that_is_done_stays;
DROP FUNCTION IF EXISTS settlements_that_are_done_stay;
DROP FUNCTION IF EXISTS settlement_begins_running;
