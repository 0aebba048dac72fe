-- depends: 0006.candles-and-cost
-- Settlements: what each client is to receive and to deliver of each asset, netted over all trades
-- since the settlement before. What is done never changes, which the tables see to by themselves.

CREATE TABLE IF NOT EXISTS settlements (
    run_id      text COLLATE "C" PRIMARY KEY CHECK (run_id <> ''),
    number      bigint NOT NULL GENERATED ALWAYS AS IDENTITY UNIQUE,
    instrument  text COLLATE "C" REFERENCES instruments (symbol),
    status      text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'done')),
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CONSTRAINT settlements_end_when_done CHECK ((status = 'done') = (finished_at IS NOT NULL))
);

-- One after the other: where the next begins is where the last has ended.
CREATE UNIQUE INDEX IF NOT EXISTS settlements_one_is_running
    ON settlements (status) WHERE status = 'running';

-- Which trades: those of events after the one sequence, up to the other. Fixed at the start.
CREATE TABLE IF NOT EXISTS settlement_ranges (
    run_id          text COLLATE "C" NOT NULL REFERENCES settlements (run_id),
    instrument      text COLLATE "C" NOT NULL REFERENCES instruments (symbol),
    after_sequence  bigint NOT NULL CHECK (after_sequence >= 0),
    up_to_sequence  bigint NOT NULL,
    netted_sequence bigint NOT NULL,
    trades          bigint NOT NULL DEFAULT 0 CHECK (trades >= 0),
    PRIMARY KEY (run_id, instrument),
    -- No trade is settled twice; also finds where an instrument's last settlement ended.
    CONSTRAINT settlement_ranges_begin_once UNIQUE (instrument, after_sequence),
    CONSTRAINT settlement_ranges_go_forward CHECK (
        after_sequence <= netted_sequence AND netted_sequence <= up_to_sequence
        AND after_sequence < up_to_sequence
    )
);

-- client_id is empty for the venue's own account, which gets the fees.
CREATE TABLE IF NOT EXISTS settlement_obligations (
    run_id    text COLLATE "C" NOT NULL REFERENCES settlements (run_id),
    client_id text COLLATE "C" NOT NULL,
    asset     text COLLATE "C" NOT NULL,
    received  numeric NOT NULL CHECK (received >= 0),
    delivered numeric NOT NULL CHECK (delivered >= 0),
    fees      numeric NOT NULL,
    amount    numeric NOT NULL GENERATED ALWAYS AS (received - delivered - fees) STORED,
    PRIMARY KEY (run_id, client_id, asset),
    CONSTRAINT settlement_obligations_venue_gets_fees
        CHECK (client_id <> '' OR (received = 0 AND delivered = 0))
);

CREATE OR REPLACE FUNCTION settlement_that_is_done_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM settlements WHERE run_id IN (OLD.run_id, NEW.run_id) AND status = 'done'
    ) THEN
        RAISE EXCEPTION 'settlement % is done and never changes', coalesce(OLD.run_id, NEW.run_id)
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;

CREATE OR REPLACE FUNCTION settlements_that_are_done_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM settlements WHERE status = 'done') THEN
        RAISE EXCEPTION 'settlements that are done never change'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION settlement_begins_running() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'settlement % begins before it is done', NEW.run_id
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE OR REPLACE FUNCTION settlement_that_is_done_balances() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong text;
BEGIN
    SELECT string_agg(asset, ', ' ORDER BY asset) INTO wrong FROM (
        SELECT asset FROM settlement_obligations WHERE run_id = NEW.run_id
        GROUP BY asset HAVING sum(received) <> sum(delivered) OR sum(fees) <> 0
    ) AS assets;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'settlement % does not sum to zero in %', NEW.run_id, wrong
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF EXISTS (
        SELECT FROM settlement_ranges
        WHERE run_id = NEW.run_id AND netted_sequence < up_to_sequence
    ) THEN
        RAISE EXCEPTION 'settlement % has trades that are not netted', NEW.run_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;

DROP TRIGGER IF EXISTS settlements_stay ON settlements;
CREATE TRIGGER settlements_stay BEFORE UPDATE OR DELETE ON settlements
    FOR EACH ROW EXECUTE FUNCTION settlement_that_is_done_stays();
DROP TRIGGER IF EXISTS settlements_balance ON settlements;
CREATE TRIGGER settlements_balance BEFORE UPDATE ON settlements
    FOR EACH ROW WHEN (NEW.status = 'done') EXECUTE FUNCTION settlement_that_is_done_balances();
DROP TRIGGER IF EXISTS settlement_ranges_stay ON settlement_ranges;
CREATE TRIGGER settlement_ranges_stay BEFORE INSERT OR UPDATE OR DELETE ON settlement_ranges
    FOR EACH ROW EXECUTE FUNCTION settlement_that_is_done_stays();
DROP TRIGGER IF EXISTS settlement_obligations_stay ON settlement_obligations;
CREATE TRIGGER settlement_obligations_stay BEFORE INSERT OR UPDATE OR DELETE ON settlement_obligations
    FOR EACH ROW EXECUTE FUNCTION settlement_that_is_done_stays();

DROP TRIGGER IF EXISTS settlements_begin ON settlements;
CREATE TRIGGER settlements_begin BEFORE INSERT ON settlements
    FOR EACH ROW WHEN (NEW.status = 'done') EXECUTE FUNCTION settlement_begins_running();
DROP TRIGGER IF EXISTS settlements_remain ON settlements;
CREATE TRIGGER settlements_remain BEFORE TRUNCATE ON settlements
    EXECUTE FUNCTION settlements_that_are_done_stay();
DROP TRIGGER IF EXISTS settlement_ranges_remain ON settlement_ranges;
CREATE TRIGGER settlement_ranges_remain BEFORE TRUNCATE ON settlement_ranges
    EXECUTE FUNCTION settlements_that_are_done_stay();
DROP TRIGGER IF EXISTS settlement_obligations_remain ON settlement_obligations;
CREATE TRIGGER settlement_obligations_remain BEFORE TRUNCATE ON settlement_obligations
    EXECUTE FUNCTION settlements_that_are_done_stay();
