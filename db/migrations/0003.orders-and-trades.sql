-- depends: 0002.events
-- What the events amount to: the last state of each order, and every execution.

-- An order's row changes a few times in its life; of the indexes only orders_open_of_instrument
-- knows a column that changes, so with room on the page (fillfactor) an update that leaves the
-- status as it is stays within it and touches no index.
CREATE TABLE IF NOT EXISTS orders (
    order_id           text COLLATE "C" PRIMARY KEY,
    instrument         text COLLATE "C" NOT NULL,
    client_id          text COLLATE "C" NOT NULL,
    side               text NOT NULL CHECK (side IN ('buy', 'sell')),
    type               text NOT NULL CHECK (type IN ('limit', 'market', 'stop', 'stop_limit')),
    time_in_force      text NOT NULL CHECK (time_in_force IN ('gtc', 'ioc', 'fok', 'gtd')),
    post_only          boolean NOT NULL,
    client_order_id    text COLLATE "C" CHECK (client_order_id <> ''),
    idempotency_key    text CHECK (idempotency_key <> ''),
    price              numeric CHECK (price > 0),
    quantity           numeric NOT NULL CHECK (quantity > 0),
    filled_quantity    numeric NOT NULL CHECK (filled_quantity >= 0),
    remaining_quantity numeric NOT NULL CHECK (remaining_quantity >= 0),
    notional           numeric NOT NULL CHECK (notional >= 0),
    status             text NOT NULL CHECK (status IN (
        'open', 'partially_filled', 'filled', 'cancelled', 'expired', 'rejected', 'pending'
    )),
    reason             text CHECK (reason <> ''),
    sequence           bigint NOT NULL CHECK (sequence > 0),
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,

    CONSTRAINT orders_quantity_is_conserved
        CHECK (filled_quantity + remaining_quantity = quantity),
    CONSTRAINT orders_notional_comes_from_fills
        CHECK ((notional = 0) = (filled_quantity = 0)),
    CONSTRAINT orders_limit_has_a_price
        CHECK (price IS NOT NULL OR type NOT IN ('limit', 'stop_limit')),
    CONSTRAINT orders_status_fits_quantity
        CHECK (CASE status
            WHEN 'open' THEN filled_quantity = 0
            WHEN 'partially_filled' THEN filled_quantity > 0 AND remaining_quantity > 0
            WHEN 'filled' THEN remaining_quantity = 0
            ELSE true
        END),
    CONSTRAINT orders_time_goes_forward
        CHECK (updated_at >= created_at)
) WITH (fillfactor = 85);

-- GET /orders?client_id=…: newest first, page after page.
CREATE INDEX IF NOT EXISTS orders_of_client
    ON orders (client_id, created_at DESC, order_id DESC);

-- GET /orders?instrument=… and GET /orders: newest first, instrument by instrument.
CREATE INDEX IF NOT EXISTS orders_of_instrument
    ON orders (instrument, created_at DESC, order_id DESC);

-- GET /orders?status=open: few among all that ever were.
CREATE INDEX IF NOT EXISTS orders_open_of_instrument
    ON orders (instrument, created_at DESC, order_id DESC)
    WHERE status IN ('open', 'partially_filled');

-- GET /orders?client_order_id=…, usually with client_id=…: one among all of a busy client's.
-- In this order of columns it serves also without the client.
CREATE INDEX IF NOT EXISTS orders_of_client_order_id
    ON orders (client_order_id, client_id)
    WHERE client_order_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS trades (
    trade_id       text COLLATE "C" PRIMARY KEY,
    instrument     text COLLATE "C" NOT NULL,
    sequence       bigint NOT NULL CHECK (sequence > 0),
    fill_index     integer NOT NULL CHECK (fill_index > 0),
    price          numeric NOT NULL CHECK (price > 0),
    quantity       numeric NOT NULL CHECK (quantity > 0),
    side           text NOT NULL CHECK (side IN ('buy', 'sell')),
    buy_order_id   text COLLATE "C" NOT NULL,
    sell_order_id  text COLLATE "C" NOT NULL,
    maker_order_id text COLLATE "C" NOT NULL,
    taker_order_id text COLLATE "C" NOT NULL,
    executed_at    timestamptz NOT NULL,

    -- GET /trades?instrument=…: newest first, page after page (read backwards).
    CONSTRAINT trades_of_instrument UNIQUE (instrument, sequence, fill_index),
    CONSTRAINT trades_have_two_parties CHECK (maker_order_id <> taker_order_id),
    CONSTRAINT trades_side_is_the_takers
        CHECK (CASE side
            WHEN 'buy' THEN buy_order_id = taker_order_id AND sell_order_id = maker_order_id
            ELSE sell_order_id = taker_order_id AND buy_order_id = maker_order_id
        END)
);
