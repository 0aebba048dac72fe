-- depends: 0004.order-types-fees-positions
-- Books as they were at some sequences, so that nobody has to read all events to know a book.

CREATE TABLE IF NOT EXISTS book_snapshots (
    instrument  text COLLATE "C" NOT NULL REFERENCES instruments (symbol),
    sequence    bigint NOT NULL CHECK (sequence >= 0),
    digest      text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
    open_orders bigint NOT NULL CHECK (open_orders >= 0),
    taken_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (instrument, sequence)
);

-- The text of each, in parts: no value is large, whatever the book.
CREATE TABLE IF NOT EXISTS book_snapshot_parts (
    instrument text COLLATE "C" NOT NULL,
    sequence   bigint NOT NULL,
    part       integer NOT NULL CHECK (part > 0),
    lines      text NOT NULL CHECK (lines <> ''),
    PRIMARY KEY (instrument, sequence, part),
    FOREIGN KEY (instrument, sequence) REFERENCES book_snapshots ON DELETE CASCADE
);
