-- depends: 0001.instruments-and-positions
-- The event store: every accepted command and all its effects, exactly as the stream had them.

CREATE TABLE IF NOT EXISTS events (
    instrument  text COLLATE "C" NOT NULL,
    sequence    bigint NOT NULL CHECK (sequence > 0),
    type        text NOT NULL CHECK (type <> ''),
    occurred_at timestamptz NOT NULL,
    orders      text NOT NULL CHECK (orders <> ''),
    fills       text NOT NULL,
    levels      text NOT NULL,
    PRIMARY KEY (instrument, sequence)
);
