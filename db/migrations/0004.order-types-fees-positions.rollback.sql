DROP TABLE IF EXISTS positions;

ALTER TABLE trades
    DROP COLUMN IF EXISTS buyer_client_id,
    DROP COLUMN IF EXISTS seller_client_id,
    DROP COLUMN IF EXISTS maker_fee,
    DROP COLUMN IF EXISTS taker_fee;

DROP INDEX IF EXISTS orders_expired_of_instrument;
DROP INDEX IF EXISTS orders_open_of_instrument;
CREATE INDEX orders_open_of_instrument
    ON orders (instrument, created_at DESC, order_id DESC)
    WHERE status IN ('open', 'partially_filled');

-- Its columns take along the constraints that name them.
ALTER TABLE orders DROP CONSTRAINT IF EXISTS orders_status_fits_quantity;
ALTER TABLE orders ADD CONSTRAINT orders_status_fits_quantity
    CHECK (CASE status
        WHEN 'open' THEN filled_quantity = 0
        WHEN 'partially_filled' THEN filled_quantity > 0 AND remaining_quantity > 0
        WHEN 'filled' THEN remaining_quantity = 0
        ELSE true
    END);
ALTER TABLE orders
    DROP COLUMN IF EXISTS stop_price,
    DROP COLUMN IF EXISTS display_quantity,
    DROP COLUMN IF EXISTS displayed_quantity,
    DROP COLUMN IF EXISTS expires_at,
    DROP COLUMN IF EXISTS self_trade_prevention,
    DROP COLUMN IF EXISTS priority;

ALTER TABLE instruments
    DROP COLUMN IF EXISTS status,
    DROP COLUMN IF EXISTS price_band_bps,
    DROP COLUMN IF EXISTS max_order_quantity,
    DROP COLUMN IF EXISTS max_order_notional,
    DROP COLUMN IF EXISTS max_open_orders,
    DROP COLUMN IF EXISTS maker_fee_bps,
    DROP COLUMN IF EXISTS taker_fee_bps,
    DROP COLUMN IF EXISTS first_rules;

-- Events of the newer version stay as they are, and so does what they say.
ALTER TABLE events DROP CONSTRAINT IF EXISTS events_orders_check;
ALTER TABLE events ADD CONSTRAINT events_orders_check CHECK (orders <> '') NOT VALID;
ALTER TABLE events DROP COLUMN IF EXISTS detail;
