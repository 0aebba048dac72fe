-- depends: 0005.book-snapshots
-- Candles of a minute, and what positions cost; both for the trades that are there, too.
-- Stop the persister first: one of an older version knows nothing of costs, and halts.

-- Until then: nothing is written down while this looks at the trades.
LOCK TABLE stream_positions IN EXCLUSIVE MODE;

-- One row per instrument and minute with a trade, updated with each batch that has trades of it. The
-- columns that change are in no index, so with room on the page the updates stay in it.
CREATE TABLE IF NOT EXISTS candles (
    instrument       text COLLATE "C" NOT NULL,
    start            timestamptz NOT NULL
        CHECK (start = date_bin('1 minute', start, timestamptz '1970-01-01 00:00:00+00')),
    open             numeric NOT NULL CHECK (open > 0),
    high             numeric NOT NULL,
    low              numeric NOT NULL CHECK (low > 0),
    close            numeric NOT NULL CHECK (close > 0),
    volume           numeric NOT NULL CHECK (volume > 0),
    quote_volume     numeric NOT NULL CHECK (quote_volume > 0),
    trades           bigint NOT NULL CHECK (trades > 0),
    buy_volume       numeric NOT NULL CHECK (buy_volume >= 0),
    largest_quantity numeric NOT NULL CHECK (largest_quantity > 0),
    first_sequence   bigint NOT NULL CHECK (first_sequence > 0),
    last_sequence    bigint NOT NULL,

    -- GET /candles, /ticker and /analytics/…: a stretch of an instrument's minutes.
    PRIMARY KEY (instrument, start),
    CONSTRAINT candles_high_is_highest CHECK (high >= open AND high >= close AND high >= low),
    CONSTRAINT candles_low_is_lowest CHECK (low <= open AND low <= close),
    CONSTRAINT candles_volumes_are_of_trades
        CHECK (buy_volume <= volume AND largest_quantity <= volume),
    CONSTRAINT candles_sequences_go_forward CHECK (last_sequence >= first_sequence)
) WITH (fillfactor = 80);

INSERT INTO candles
SELECT
    instrument,
    date_bin('1 minute', executed_at, timestamptz '1970-01-01 00:00:00+00') AS start,
    (array_agg(price ORDER BY sequence, fill_index))[1],
    max(price),
    min(price),
    (array_agg(price ORDER BY sequence DESC, fill_index DESC))[1],
    sum(quantity),
    sum(price * quantity),
    count(*),
    coalesce(sum(quantity) FILTER (WHERE side = 'buy'), 0),
    max(quantity),
    min(sequence),
    max(sequence)
FROM trades
GROUP BY instrument, start
ON CONFLICT DO NOTHING;

-- What the open quantity cost, signed as the quantity (app/domain/holdings.py says how it is
-- computed), and so what was gained on what is closed.
ALTER TABLE positions ADD COLUMN IF NOT EXISTS cost numeric;
ALTER TABLE positions ADD COLUMN IF NOT EXISTS realised_pnl numeric
    GENERATED ALWAYS AS (sold_notional - bought_notional + cost) STORED;

-- Of a position so far, {lots, ticks x lots}, what it is after a trade of `lots` at `ticks`.
CREATE OR REPLACE FUNCTION crossbook_held_after(held numeric[], lots numeric, ticks numeric)
RETURNS numeric[] IMMUTABLE LANGUAGE plpgsql AS '
DECLARE
    share numeric;
    released numeric;
BEGIN
    IF held[1] * lots >= 0 THEN
        RETURN ARRAY[held[1] + lots, held[2] + lots * ticks];
    END IF;
    IF abs(lots) >= abs(held[1]) THEN
        RETURN ARRAY[held[1] + lots, (held[1] + lots) * ticks];
    END IF;
    share := abs(held[2] * lots);
    released := div(share, abs(held[1]));
    share := 2 * (share - released * abs(held[1]));
    IF share > abs(held[1]) OR (share = abs(held[1]) AND mod(released, 2) = 1) THEN
        released := released + 1;
    END IF;
    RETURN ARRAY[held[1] + lots, held[2] - sign(held[2]) * released];
END';

CREATE OR REPLACE AGGREGATE crossbook_held(numeric, numeric) (
    SFUNC = crossbook_held_after, STYPE = numeric[], INITCOND = '{0,0}'
);

UPDATE positions AS p SET cost = coalesce(h.held[2] * i.tick_size * i.lot_size, 0)
FROM instruments AS i, (
    SELECT client_id, s.instrument,
        crossbook_held(
            div(lots, lot_size), div(price, tick_size) ORDER BY sequence, fill_index
        ) FILTER (WHERE is_between_two) AS held
    FROM (
        SELECT buyer_client_id AS client_id, instrument, sequence, fill_index, price,
            quantity AS lots, buyer_client_id <> seller_client_id AS is_between_two
        FROM trades
        UNION ALL
        SELECT seller_client_id, instrument, sequence, fill_index, price, -quantity,
            buyer_client_id <> seller_client_id
        FROM trades
    ) AS s JOIN instruments AS n ON n.symbol = s.instrument
    GROUP BY client_id, s.instrument
) AS h
WHERE p.client_id = h.client_id AND p.instrument = h.instrument AND i.symbol = p.instrument
    AND p.cost IS NULL;

DROP AGGREGATE crossbook_held(numeric, numeric);
DROP FUNCTION crossbook_held_after(numeric[], numeric, numeric);

ALTER TABLE positions ALTER COLUMN cost SET NOT NULL, ALTER COLUMN realised_pnl SET NOT NULL;
