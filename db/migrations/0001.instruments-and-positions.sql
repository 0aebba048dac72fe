-- What is traded, and how far the event stream of each instrument has been written down.

CREATE TABLE IF NOT EXISTS instruments (
    symbol       text COLLATE "C" PRIMARY KEY CHECK (symbol <> ''),
    tick_size    numeric NOT NULL CHECK (tick_size > 0),
    lot_size     numeric NOT NULL CHECK (lot_size > 0),
    max_price    numeric NOT NULL CHECK (max_price > 0),
    max_quantity numeric NOT NULL CHECK (max_quantity > 0),
    created_at   timestamptz NOT NULL DEFAULT now()
);

-- One narrow row per instrument, updated with each batch: room on the page keeps the updates in it.
CREATE TABLE IF NOT EXISTS stream_positions (
    instrument text COLLATE "C" PRIMARY KEY REFERENCES instruments (symbol),
    sequence   bigint NOT NULL DEFAULT 0 CHECK (sequence >= 0),
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
