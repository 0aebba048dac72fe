"""The pure part of the persister: what becomes of a stream entry, and of one that is not ours."""

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.holdings import Holding
from app.domain.instruments import EXACT_LIMIT, list_instrument
from app.domain.orders import RECORD_FIELDS, Status, parse_record
from app.domain.rules import Rules, rule_texts
from app.persistence import event_store
from app.persistence.instruments import RULE_COLUMNS
from app.persistence.rows import (
    FEE_BPS_DECIMALS_MAX,
    FEE_BPS_MAX,
    UNREADABLE,
    Batch,
    Entry,
    Texts,
    halves,
    notional_step,
    numbers_over,
    to_units,
    transactions,
)

BITCOIN = list_instrument("BTC-USD", Decimal("0.01"), Decimal("0.00000001"))
TEXTS = Texts(BITCOIN)
FREE = TEXTS.fees(Rules())
TIME_US = 1_700_000_000_123_456
TIME = "2023-11-14T22:13:20.123456Z"

RESTING = {
    "status": "open",
    "quantity_lots": "150000000",
    "filled_lots": "0",
    "notional": "0",
    "price_ticks": "5000000",
    "created_us": str(TIME_US),
    "client_id": "alice",
    "side": "sell",
    "type": "limit",
    "time_in_force": "gtc",
    "post_only": "1",
    "self_trade_prevention": "none",
}


def record(**changes: str) -> str:
    return "|".join((RESTING | changes).get(name, "") for name in RECORD_FIELDS)


def line(number: int, **changes: str) -> str:
    return f"{number:014d}|{record(**changes)}"


def entry(sequence: int, *lines: str, fills: str = "", **changes: str) -> Entry:
    fields = {
        "type": "place",
        "time": str(TIME_US),
        "orders": "\n".join(lines or [line(sequence)]),
        "fills": fills,
        "levels": "ask:5000000=150000000",
    }
    return Entry(sequence, fields | changes)


TAKEN = {"status": "filled", "filled_lots": "150000000", "notional": "750000000000000"}


def trade(sequence: int, maker: int) -> Entry:
    return entry(
        sequence,
        line(sequence, side="buy", client_id="bob", **TAKEN),
        line(maker, sequence=str(sequence), updated_us=str(TIME_US + 1), **TAKEN),
        fills=f"{maker:014d},5000000,150000000",
    )


def batch_of(*entries: Entry, rules: Rules | None = None) -> Batch:
    batch = Batch()
    for each in entries:
        batch.add(TEXTS, each, TEXTS.fees(rules or Rules()))
    return batch


def rules_event(sequence: int, rules: Rules) -> Entry:
    said = rule_texts(rules).items()
    detail = " ".join(f"{name}={text}" for name, text in said if text)
    return entry(sequence, orders="", levels="", type="rules", detail=detail)


def test_event_is_kept_as_the_stream_had_it() -> None:
    """Rule: the event store holds each entry's text unchanged, and its time to the microsecond."""
    written = entry(7, line(7, client_order_id="a\\b\t'{}\""))
    fields = written.fields
    assert batch_of(written).events == [
        ("BTC-USD", 7, "place", TIME, fields["orders"], "", fields["levels"], "")
    ]


@pytest.mark.parametrize(
    ("kind", "detail"),
    [("rules", "status=halted"), ("kill_switch", "alice|1"), ("cancel_after", "alice|")],
)
def test_event_without_an_order_is_kept(kind: str, detail: str) -> None:
    """Rule: a change of rules, a kill switch and a timer need no order; what they set is kept."""
    batch = batch_of(entry(7, orders="", levels="", type=kind, detail=detail))
    assert batch.events == [("BTC-USD", 7, kind, TIME, "", "", "", detail)]
    assert (batch.orders, batch.over, batch.ends) == ({}, {"BTC-USD": []}, {"BTC-USD": 7})


def test_resting_order_has_a_row() -> None:
    """Rule: an order's row has the decimals of its instrument, and NULL where there is nothing."""
    (row,) = batch_of(entry(7)).orders.values()
    assert dict(zip(event_store.ORDER_COLUMNS, row, strict=True)) == {
        "order_id": "BTC-USD-00000000000007",
        "instrument": "BTC-USD",
        "client_id": "alice",
        "side": "sell",
        "type": "limit",
        "time_in_force": "gtc",
        "post_only": True,
        "client_order_id": None,
        "idempotency_key": None,
        "price": "50000.00",
        "quantity": "1.50000000",
        "filled_quantity": "0.00000000",
        "remaining_quantity": "1.50000000",
        "notional": "0.0000000000",
        "status": "open",
        "reason": None,
        "sequence": 7,
        "created_at": TIME,
        "updated_at": TIME,
        "stop_price": None,
        "display_quantity": None,
        "displayed_quantity": None,
        "expires_at": None,
        "self_trade_prevention": "none",
        "priority": None,
    }


def test_order_with_everything_has_a_row() -> None:
    """Rule: stop price, iceberg, expiry, prevention and place in the queue are columns, too."""
    changes = {
        "stop_price_ticks": "4999999",
        "display_lots": "100000000",
        "displayed_lots": "25",
        "expires_us": str(TIME_US + 1),
        "self_trade_prevention": "decrement",
        "priority": "00000000000009.00001",
    }
    (row,) = batch_of(entry(7, line(7, **changes))).orders.values()
    named = dict(zip(event_store.ORDER_COLUMNS, row, strict=True))
    assert {name: named[name] for name in list(named)[-6:]} == {
        "stop_price": "49999.99",
        "display_quantity": "1.00000000",
        "displayed_quantity": "0.00000025",
        "expires_at": "2023-11-14T22:13:20.123457Z",
        "self_trade_prevention": "decrement",
        "priority": "00000000000009.00001",
    }


@pytest.mark.parametrize(("side", "buyer", "seller"), [("buy", 9, 7), ("sell", 7, 9)])
def test_fill_has_a_row(side: str, buyer: int, seller: int) -> None:
    """Rule: a trade names its parties by role and by side, its place within the event, and what it
    cost whom.
    """
    fills = "00000000000007,5000000,1 00000000000008,5000001,25"
    orders = line(9, side=side, client_id="c9"), line(7, client_id="c7"), line(8, client_id="c8")
    rules = Rules(maker_fee_bps=Decimal("-0.5"), taker_fee_bps=Decimal(10))
    batch = batch_of(entry(9, *orders, fills=fills), rules=rules)
    first, second = (dict(zip(event_store.TRADE_COLUMNS, row, strict=True)) for row in batch.trades)
    assert first == {
        "trade_id": "BTC-USD-00000000000009-1",
        "instrument": "BTC-USD",
        "sequence": 9,
        "fill_index": 1,
        "price": "50000.00",
        "quantity": "0.00000001",
        "side": side,
        "buy_order_id": f"BTC-USD-{buyer:014d}",
        "sell_order_id": f"BTC-USD-{seller:014d}",
        "maker_order_id": "BTC-USD-00000000000007",
        "taker_order_id": "BTC-USD-00000000000009",
        "executed_at": TIME,
        "buyer_client_id": f"c{buyer}",
        "seller_client_id": f"c{seller}",
        "maker_fee": "-0.000000025000000",
        "taker_fee": "0.00000050000000",
    }
    assert (second["trade_id"], second["price"]) == ("BTC-USD-00000000000009-2", "50000.01")
    other = "seller_client_id" if side == "buy" else "buyer_client_id"
    assert second[other] == "c8"


rates = st.decimals(-FEE_BPS_MAX, FEE_BPS_MAX, allow_nan=False, places=4) | st.decimals(
    -1, 1, allow_nan=False, places=FEE_BPS_DECIMALS_MAX
)
flows = st.lists(
    st.tuples(
        st.sampled_from(["buy", "sell"]),
        st.sampled_from(["a", "b", "c"]),
        st.lists(
            st.tuples(
                st.sampled_from(["a", "b", "c"]),
                st.integers(1, EXACT_LIMIT - 1),
                st.integers(1, EXACT_LIMIT - 1),
            ),
            max_size=3,
        ),
        st.none() | st.tuples(rates, rates),
    ),
    max_size=12,
)


@given(flows, rates, rates)
def test_fees_and_positions_are_exact(
    flow: list[tuple[str, str, list[tuple[str, int, int]], tuple[Decimal, Decimal] | None]],
    maker_bps: Decimal,
    taker_bps: Decimal,
) -> None:
    """Rule: a fee is price x quantity x rate, never rounded, at the rate in force when the trade
    happened; positions are the sums of what the trades say.
    """
    start = Rules(maker_fee_bps=maker_bps, taker_fee_bps=taker_bps)
    now, sequence = start, 0
    entries: list[Entry] = []
    fees: list[tuple[Fraction, Fraction]] = []
    held: dict[str, list[Fraction]] = {}
    for side, taker, fills, change in flow:
        if change is not None:
            now = Rules(maker_fee_bps=change[0], taker_fee_bps=change[1])
            sequence += 1
            entries.append(rules_event(sequence, now))
        sequence += 1
        makers = [line(900 + n, client_id=maker) for n, (maker, _, _) in enumerate(fills)]
        text = " ".join(f"{900 + n},{price},{lots}" for n, (_, price, lots) in enumerate(fills))
        taking = line(sequence, client_id=taker, side=side)
        entries.append(entry(sequence, taking, *makers, fills=text))
        for maker, price, lots in fills:
            quantity = lots * Fraction(BITCOIN.lot_size)
            notional = quantity * price * Fraction(BITCOIN.tick_size)
            paid = [notional * Fraction(each) / 10_000 for each in _rates(now)]
            fees.append((paid[0], paid[1]))
            _hold(held, maker, side == "sell", quantity, notional, paid[0])
            _hold(held, taker, side == "buy", quantity, notional, paid[1])
    batch = batch_of(*entries, rules=start)
    rows = [dict(zip(event_store.TRADE_COLUMNS, row, strict=True)) for row in batch.trades]
    assert [(Fraction(row["maker_fee"]), Fraction(row["taker_fee"])) for row in rows] == fees
    positions = [
        dict(zip(event_store.POSITION_COLUMNS, row, strict=True)) for row in batch.position_rows({})
    ]
    summed = {str(row["client_id"]): [Fraction(row[name]) for name in SUMS] for row in positions}
    assert summed == held


def _rates(rules: Rules) -> tuple[Decimal, Decimal]:
    return rules.maker_fee_bps, rules.taker_fee_bps


SUMS = ("fees", "bought_quantity", "sold_quantity", "bought_notional", "sold_notional", "trades")


def _hold(
    held: dict[str, list[Fraction]],
    client: str,
    buys: bool,
    quantity: Fraction,
    notional: Fraction,
    fee: Fraction,
) -> None:
    position = held.setdefault(client, [Fraction(0)] * 6)
    bought, sold = (quantity, 0) if buys else (0, quantity)
    spent, earned = (notional, 0) if buys else (0, notional)
    changes = fee, bought, sold, spent, earned, 1
    held[client] = [old + new for old, new in zip(position, changes, strict=True)]


def test_trade_with_oneself_is_two_sides() -> None:
    """Rule: a client who trades with himself holds what he held, at what it cost, and pays both
    fees.
    """
    own = entry(2, line(2, side="buy"), line(1), fills="1,5000000,100000000")
    rules = Rules(maker_fee_bps=Decimal(1), taker_fee_bps=Decimal(2))
    held = {("alice", "BTC-USD"): Holding(-3, -20)}
    (row,) = batch_of(own, rules=rules).position_rows(held)
    assert dict(zip(event_store.POSITION_COLUMNS, row, strict=True)) == {
        "client_id": "alice",
        "instrument": "BTC-USD",
        "fees": "15.00000000000000",
        "bought_quantity": "1.00000000",
        "sold_quantity": "1.00000000",
        "bought_notional": "50000.0000000000",
        "sold_notional": "50000.0000000000",
        "trades": 2,
        "cost": "-0.0000000020",
    }


def test_cost_follows_the_order_of_trades() -> None:
    """Rule: a position's cost goes on from what is stored, trade by trade through the batch."""
    selling = [line(n, side="sell", client_id="carol") for n in (1, 2)]
    first = entry(2, line(2, side="buy", client_id="bob"), selling[0], fills="1,10,4 1,20,4")
    second = entry(
        3, line(3, side="sell", client_id="bob"), line(2, client_id="dave"), fills="2,30,9"
    )
    held = {("bob", "BTC-USD"): Holding(-2, -26)}
    batch = batch_of(first, second)
    rows = {row[0]: row[-1] for row in batch.position_rows(held)}
    # Bob: -2 at 13, then 4 at 10 (2 are left of it), 4 at 20, and -9 at 30 (3 short are left).
    assert rows == {"carol": "-0.0000000120", "bob": "-0.0000000090", "dave": "0.0000000270"}
    assert held == {("bob", "BTC-USD"): Holding(-2, -26)}


def test_minute_has_a_candle() -> None:
    """Rule: trades of a minute make a candle; open and close are by sequence, also where the clock
    has stepped back in between.
    """
    minute_us = TIME_US - TIME_US % 60_000_000
    later, sell = minute_us + 60_000_000, line(2, side="sell", client_id="bob")
    batch = batch_of(
        entry(2, line(2, side="buy"), line(1), fills="1,500,2 1,700,7", time=str(minute_us)),
        entry(3, line(3, side="buy"), line(1), fills="1,900,1", time=str(later)),
        entry(4, sell, line(1), fills="1,400,3", time=str(later - 1)),
        entry(5, line(5, side="buy"), line(1), fills="", time=str(later + 60_000_000)),
    )
    rows = [dict(zip(event_store.CANDLE_COLUMNS, row, strict=True)) for row in batch.candle_rows]
    assert rows[0] == {
        "instrument": "BTC-USD",
        "start": "2023-11-14T22:13:00.000000Z",
        "open": "5.00",
        "high": "7.00",
        "low": "4.00",
        "close": "4.00",
        "volume": "0.00000012",
        "quote_volume": "0.0000007100",
        "trades": 3,
        "buy_volume": "0.00000009",
        "largest_quantity": "0.00000007",
        "first_sequence": 2,
        "last_sequence": 4,
    }
    assert [row["start"] for row in rows[1:]] == ["2023-11-14T22:14:00.000000Z"]


def test_rules_have_a_row() -> None:
    """Rule: the last rules of a batch are kept in the units of prices and quantities, NULL where
    there is no limit.
    """
    rules = Rules(
        status="cancel_only",
        price_band_bps=500,
        max_order_lots=150_000_000,
        max_order_notional=750_000_000_000_001,
        taker_fee_bps=Decimal("2.5"),
    )
    batch = batch_of(rules_event(1, Rules(max_open_orders=3)), rules_event(2, rules))
    (row,) = batch.rules.values()
    assert dict(zip(("symbol", *RULE_COLUMNS), row, strict=True)) == {
        "symbol": "BTC-USD",
        "status": "cancel_only",
        "price_band_bps": 500,
        "max_order_quantity": "1.50000000",
        "max_order_notional": "75000.0000000001",
        "max_open_orders": None,
        "maker_fee_bps": "0",
        "taker_fee_bps": "2.5",
    }
    assert batch.fees == {"BTC-USD": TEXTS.fees(rules)}


@pytest.mark.parametrize("rate", ["NaN", "Infinity", "10000.01", "-10000.01", "1e-19", "1e999999"])
def test_absurd_rate_is_an_error(rate: str) -> None:
    """Rule: a rate that is no number, above the whole notional or beyond exactness is refused."""
    with pytest.raises(UNREADABLE):
        TEXTS.fees(Rules(maker_fee_bps=Decimal(rate)))


def test_last_state_of_an_order_wins() -> None:
    """Rule: a batch writes each order once, in the last state that it has within the batch."""
    batch = batch_of(entry(1), trade(2, maker=1))
    maker = dict(
        zip(event_store.ORDER_COLUMNS, batch.orders["BTC-USD-00000000000001"], strict=True)
    )
    assert (maker["status"], maker["sequence"], maker["notional"]) == (
        "filled",
        2,
        "75000.0000000000",
    )
    assert maker["updated_at"] == "2023-11-14T22:13:20.123457Z"
    assert list(batch.orders) == ["BTC-USD-00000000000001", "BTC-USD-00000000000002"]


def test_batch_knows_where_it_starts_and_ends() -> None:
    """Rule: the position moves from the entry before the first to the last one, per instrument."""
    batch = batch_of(entry(4), entry(5), entry(6))
    assert batch.starts == {"BTC-USD": 3}
    assert batch.ends == {"BTC-USD": 6}
    assert batch.sequences == {"BTC-USD": range(4, 7)}


def test_orders_that_are_over_leave() -> None:
    """Rule: Redis may forget orders that are filled, cancelled or expired, and no others."""
    expired = entry(4, line(3, status="expired"), type="expire")
    batch = batch_of(entry(1), trade(2, maker=1), entry(3), expired)
    assert batch.over == {"BTC-USD": [2, 1, 3]}


def test_unknown_status_is_not_over() -> None:
    """Rule: an order in a state that this code does not know stays in Redis."""
    states = [*Status, "triggered", ""]
    orders = [parse_record(n, record(status=state)) for n, state in enumerate(states)]
    assert {states[n] for n in numbers_over(orders)} == {"filled", "cancelled", "expired"}


UNREADABLE_ENTRIES = {
    "id that is no sequence": Entry(5, {}),
    "no time": Entry(5, {k: v for k, v in entry(5).fields.items() if k != "time"}),
    "time that is no number": entry(5, time="noon"),
    "time after the calendar": entry(5, time=str(10**30)),
    "no orders": entry(5, orders=""),
    "order without a record": entry(5, orders="00000000000005"),
    "order without a number": entry(5, orders="|" + record()),
    "record with a field too many": entry(5, orders=line(5) + "|"),
    "record with a field too few": entry(5, orders=line(5).rpartition("|")[0]),
    "quantity that is no integer": entry(5, line(5, quantity_lots="1.5")),
    "bad maker after a good taker": entry(5, line(5), line(4, filled_lots="many")),
    "fill with two parts": entry(5, fills="00000000000004,5000000"),
    "fill that is no number": entry(5, fills="00000000000004,x,1"),
    "maker whose order is missing": entry(5, fills="00000000000004,5000000,1"),
    "fills without an order": entry(5, orders="", type="rules", detail="", fills="4,5000000,1"),
    "rules without any": entry(5, orders="", type="rules"),
    "rules that are no pairs": entry(5, orders="", type="rules", detail="halted"),
    "rules with a wrong status": entry(5, orders="", type="rules", detail="status=asleep"),
    "rules with a wrong limit": entry(5, orders="", type="rules", detail="max_order_lots=many"),
    "rules with a wrong rate": entry(5, orders="", type="rules", detail="maker_fee_bps=many"),
    "rules with an absurd rate": entry(5, orders="", type="rules", detail="maker_fee_bps=1e9"),
}


@pytest.mark.parametrize("name", UNREADABLE_ENTRIES)
def test_unreadable_entry_changes_nothing(name: str) -> None:
    """Rule: an entry that cannot be read is recognised before anything of it joins the batch."""
    batch = batch_of(entry(4))
    with pytest.raises(UNREADABLE):
        batch.add(TEXTS, UNREADABLE_ENTRIES[name], FREE)
    assert vars(batch) == vars(batch_of(entry(4)))


sizes = st.builds(
    lambda digits, decimals: Decimal(digits).scaleb(-decimals),
    st.integers(1, 10**18 - 1) | st.sampled_from([1, 5, 25]),
    st.integers(0, 18),
)


@given(
    tick=sizes,
    lot=sizes,
    units=st.integers(0, EXACT_LIMIT - 1),
    more=st.integers(0, EXACT_LIMIT - 1),
)
@example(
    tick=Decimal("0.999999999999999999"),
    lot=Decimal("0.999999999999999989"),
    units=EXACT_LIMIT - 1,
    more=EXACT_LIMIT - 3,
)
def test_numbers_come_back_exactly(tick: Decimal, lot: Decimal, units: int, more: int) -> None:
    """Rule: what is written as decimal text is read back as the same number of ticks and lots."""
    limit = EXACT_LIMIT - 1
    with localcontext(prec=100):
        instrument = list_instrument("A1-B2", tick, lot, tick * limit, lot * limit)
    texts = Texts(instrument)
    notional = units * more
    assert to_units(Decimal(texts.price(units)), instrument.tick_size) == units
    assert to_units(Decimal(texts.quantity(units)), instrument.lot_size) == units
    with localcontext(prec=100):
        assert Decimal(texts.notional(notional)) == tick * units * (lot * more)
    assert to_units(Decimal(texts.notional(notional)), notional_step(instrument)) == notional


def test_off_step_number_is_an_error() -> None:
    """Rule: a stored number that is no whole number of steps is never rounded."""
    with pytest.raises(ValueError, match="not a multiple"):
        to_units(Decimal("0.015"), Decimal("0.01"))


deliveries = st.dictionaries(
    st.sampled_from(["A", "B", "C"]),
    st.lists(st.integers(1, 9).map(lambda n: Entry(n, {"orders": "x\n" * n})), min_size=1),
    min_size=1,
)


@given(deliveries, st.integers(1, 30))
def test_transactions_cover_the_delivery(delivery: dict[str, list[Entry]], rows_max: int) -> None:
    """Rule: cutting a delivery into transactions loses nothing and reorders nothing."""
    joined: dict[str, list[Entry]] = {}
    for piece in transactions(delivery, rows_max):
        assert piece
        sizes = [2 + each.sequence for entries in piece.values() for each in entries]
        assert sum(sizes[:-1]) < rows_max
        for symbol, entries in piece.items():
            joined.setdefault(symbol, []).extend(entries)
    assert joined == delivery


def test_trades_count_for_the_size_of_a_transaction() -> None:
    """Rule: an iceberg that is taken part by part is one order and very many rows."""
    entry = Entry(1, {"orders": "x\nx", "fills": " ".join(["1,2,3"] * 300)})
    pieces = list(transactions({"A": [entry] * 10}, rows_max=1_000))
    assert [len(piece["A"]) for piece in pieces] == [4, 4, 2]


@given(deliveries)
def test_halving_ends_at_single_entries(delivery: dict[str, list[Entry]]) -> None:
    """Rule: halving what Postgres refuses comes down to each entry by itself, in order."""
    singles: list[tuple[str, Entry]] = []
    waiting = [delivery]
    while waiting:
        part = waiting.pop(0)
        parts = halves(part)
        waiting = parts + waiting
        if not parts:
            ((symbol, (single,)),) = part.items()
            singles.append((symbol, single))
    assert singles == [(s, each) for s, entries in delivery.items() for each in entries]
