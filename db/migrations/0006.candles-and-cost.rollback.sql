-- Undoes 0006.candles-and-cost.sql.

ALTER TABLE positions DROP COLUMN IF EXISTS realised_pnl, DROP COLUMN IF EXISTS cost;

DROP TABLE IF EXISTS candles;
