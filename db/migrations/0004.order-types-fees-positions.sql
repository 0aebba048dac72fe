-- depends: 0003.orders-and-trades
-- Stops, icebergs, expiries and self-trade prevention on orders; fees and clients on trades; the
-- rules of an instrument; what each client holds.
-- Stop the persister first: one of an older version knows nothing of fees, and halts.

-- A change of rules, a kill switch and a timer concern no order.
ALTER TABLE events ADD COLUMN IF NOT EXISTS detail text NOT NULL DEFAULT '';
ALTER TABLE events DROP CONSTRAINT IF EXISTS events_orders_check;
ALTER TABLE events ADD CONSTRAINT events_orders_check
    CHECK (orders <> '' OR type IN ('rules', 'kill_switch', 'cancel_after'));

-- As of the instrument's position in stream_positions: the persister changes both together. But for
-- first_rules, with which it was listed and no event tells: there a replay of its events begins.
ALTER TABLE instruments
    ADD COLUMN IF NOT EXISTS status text NOT NULL DEFAULT 'open'
        CONSTRAINT instruments_status_check CHECK (status IN ('open', 'cancel_only', 'halted')),
    ADD COLUMN IF NOT EXISTS price_band_bps bigint
        CONSTRAINT instruments_price_band_bps_check CHECK (price_band_bps >= 0),
    ADD COLUMN IF NOT EXISTS max_order_quantity numeric
        CONSTRAINT instruments_max_order_quantity_check CHECK (max_order_quantity >= 0),
    ADD COLUMN IF NOT EXISTS max_order_notional numeric
        CONSTRAINT instruments_max_order_notional_check CHECK (max_order_notional >= 0),
    ADD COLUMN IF NOT EXISTS max_open_orders bigint
        CONSTRAINT instruments_max_open_orders_check CHECK (max_open_orders >= 0),
    ADD COLUMN IF NOT EXISTS maker_fee_bps numeric NOT NULL DEFAULT 0
        CONSTRAINT instruments_maker_fee_bps_check
        CHECK (abs(maker_fee_bps) <= 10000 AND scale(maker_fee_bps) <= 18),
    ADD COLUMN IF NOT EXISTS taker_fee_bps numeric NOT NULL DEFAULT 0
        CONSTRAINT instruments_taker_fee_bps_check
        CHECK (abs(taker_fee_bps) <= 10000 AND scale(taker_fee_bps) <= 18),
    ADD COLUMN IF NOT EXISTS first_rules text NOT NULL DEFAULT '';

ALTER TABLE orders
    ADD COLUMN IF NOT EXISTS stop_price numeric
        CONSTRAINT orders_stop_price_check CHECK (stop_price > 0),
    ADD COLUMN IF NOT EXISTS display_quantity numeric
        CONSTRAINT orders_display_quantity_check CHECK (display_quantity > 0),
    ADD COLUMN IF NOT EXISTS displayed_quantity numeric
        CONSTRAINT orders_displayed_quantity_check CHECK (displayed_quantity >= 0),
    ADD COLUMN IF NOT EXISTS expires_at timestamptz,
    ADD COLUMN IF NOT EXISTS self_trade_prevention text NOT NULL DEFAULT 'none'
        CONSTRAINT orders_self_trade_prevention_check CHECK (self_trade_prevention IN (
            'none', 'cancel_newest', 'cancel_oldest', 'cancel_both', 'decrement'
        )),
    ADD COLUMN IF NOT EXISTS priority text COLLATE "C"
        CONSTRAINT orders_priority_check CHECK (priority <> '');

ALTER TABLE orders DROP CONSTRAINT IF EXISTS orders_stop_has_a_stop_price;
ALTER TABLE orders ADD CONSTRAINT orders_stop_has_a_stop_price
    CHECK ((stop_price IS NOT NULL) = (type IN ('stop', 'stop_limit')));

ALTER TABLE orders DROP CONSTRAINT IF EXISTS orders_gtd_has_an_expiry;
ALTER TABLE orders ADD CONSTRAINT orders_gtd_has_an_expiry
    CHECK (expires_at IS NOT NULL OR time_in_force <> 'gtd');

ALTER TABLE orders DROP CONSTRAINT IF EXISTS orders_status_fits_quantity;
ALTER TABLE orders ADD CONSTRAINT orders_status_fits_quantity
    CHECK (CASE status
        WHEN 'open' THEN filled_quantity = 0
        WHEN 'pending' THEN filled_quantity = 0 AND type IN ('stop', 'stop_limit')
        WHEN 'partially_filled' THEN filled_quantity > 0 AND remaining_quantity > 0
        WHEN 'filled' THEN remaining_quantity = 0
        ELSE true
    END);

-- GET /orders?status=open, and pending: few among all that ever were.
DROP INDEX IF EXISTS orders_open_of_instrument;
CREATE INDEX orders_open_of_instrument
    ON orders (instrument, created_at DESC, order_id DESC)
    WHERE status IN ('open', 'partially_filled', 'pending');

-- GET /orders?status=expired: few, too, and so not soon found among all.
CREATE INDEX IF NOT EXISTS orders_expired_of_instrument
    ON orders (instrument, created_at DESC, order_id DESC)
    WHERE status = 'expired';

-- Until here nobody paid a fee. From here on each trade says what it cost, so: no default.
ALTER TABLE trades
    ADD COLUMN IF NOT EXISTS buyer_client_id text COLLATE "C",
    ADD COLUMN IF NOT EXISTS seller_client_id text COLLATE "C",
    ADD COLUMN IF NOT EXISTS maker_fee numeric NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS taker_fee numeric NOT NULL DEFAULT 0;
ALTER TABLE trades ALTER COLUMN maker_fee DROP DEFAULT, ALTER COLUMN taker_fee DROP DEFAULT;
UPDATE trades AS t SET buyer_client_id = b.client_id, seller_client_id = s.client_id
    FROM orders AS b, orders AS s
    WHERE b.order_id = t.buy_order_id AND s.order_id = t.sell_order_id
        AND t.buyer_client_id IS NULL;
ALTER TABLE trades
    ALTER COLUMN buyer_client_id SET NOT NULL,
    ALTER COLUMN seller_client_id SET NOT NULL;

-- One row per client and instrument, updated with each batch that has trades of that client.
CREATE TABLE IF NOT EXISTS positions (
    client_id       text COLLATE "C" NOT NULL,
    instrument      text COLLATE "C" NOT NULL,
    quantity        numeric NOT NULL GENERATED ALWAYS AS (bought_quantity - sold_quantity) STORED,
    fees            numeric NOT NULL,
    bought_quantity numeric NOT NULL CHECK (bought_quantity >= 0),
    sold_quantity   numeric NOT NULL CHECK (sold_quantity >= 0),
    bought_notional numeric NOT NULL CHECK (bought_notional >= 0),
    sold_notional   numeric NOT NULL CHECK (sold_notional >= 0),
    trades          bigint NOT NULL CHECK (trades > 0),
    PRIMARY KEY (client_id, instrument)
) WITH (fillfactor = 70);

INSERT INTO positions (
    client_id, instrument, fees, bought_quantity, sold_quantity, bought_notional, sold_notional,
    trades
)
SELECT client_id, instrument, 0, sum(bought), sum(sold), sum(bought * price), sum(sold * price),
    count(*)
FROM (
    SELECT buyer_client_id AS client_id, instrument, price, quantity AS bought, 0 AS sold
    FROM trades
    UNION ALL
    SELECT seller_client_id, instrument, price, 0, quantity FROM trades
) AS parts
GROUP BY client_id, instrument
ON CONFLICT DO NOTHING;
