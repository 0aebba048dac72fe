"""The pure part of the persister: what becomes of a stream entry, and of one that is not ours."""

from decimal import Decimal, localcontext

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.instruments import EXACT_LIMIT, list_instrument
from app.domain.orders import RECORD_FIELDS, Status, parse_record
from app.persistence import event_store
from app.persistence.rows import (
    OVER,
    UNREADABLE,
    Batch,
    Entry,
    Texts,
    halves,
    notional_scale,
    numbers_over,
    to_units,
    transactions,
)

BITCOIN = list_instrument("BTC-USD", Decimal("0.01"), Decimal("0.00000001"))
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


def batch_of(*entries: Entry) -> Batch:
    batch = Batch()
    for each in entries:
        batch.add(Texts(BITCOIN), each)
    return batch


def test_event_is_kept_as_the_stream_had_it() -> None:
    """Rule: the event store holds each entry's text unchanged, and its time to the microsecond."""
    written = entry(7, line(7, client_order_id="a\\b\t'{}\""))
    fields = written.fields
    assert batch_of(written).events == [
        ("BTC-USD", 7, "place", TIME, fields["orders"], "", fields["levels"])
    ]


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
    }


@pytest.mark.parametrize(("side", "buyer", "seller"), [("buy", 9, 7), ("sell", 7, 9)])
def test_fill_has_a_row(side: str, buyer: int, seller: int) -> None:
    """Rule: a trade names its parties by role and by side, and its place within the event."""
    fills = "00000000000007,5000000,1 00000000000008,5000001,25"
    batch = batch_of(entry(9, line(9, side=side), fills=fills))
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
    }
    assert (second["trade_id"], second["price"]) == ("BTC-USD-00000000000009-2", "50000.01")


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
    """Rule: Redis may forget orders that are filled or cancelled, and no others."""
    assert batch_of(entry(1), trade(2, maker=1), entry(3)).over == {"BTC-USD": [2, 1]}


def test_unknown_status_is_not_over() -> None:
    """Rule: an order in a state that this code does not know stays in Redis."""
    states = [*Status, "pending", "triggered", ""]
    orders = [parse_record(n, record(status=state)) for n, state in enumerate(states)]
    assert {states[n] for n in numbers_over(orders)} == OVER == {"filled", "cancelled"}


UNREADABLE_ENTRIES = {
    "id that is no sequence": Entry(5, {}),
    "no time": Entry(5, {k: v for k, v in entry(5).fields.items() if k != "time"}),
    "time that is no number": entry(5, time="noon"),
    "time after the calendar": entry(5, time=str(10**30)),
    "no orders": entry(5, orders=""),
    "order without a record": entry(5, orders="00000000000005"),
    "order without a number": entry(5, orders="|" + record()),
    "record with a field too many": entry(5, orders=line(5) + "|"),
    "record with a field too few": entry(5, orders=line(5).removesuffix("|none|")),
    "quantity that is no integer": entry(5, line(5, quantity_lots="1.5")),
    "bad maker after a good taker": entry(5, line(5), line(4, filled_lots="many")),
    "fill with two parts": entry(5, fills="00000000000004,5000000"),
    "fill that is no number": entry(5, fills="00000000000004,x,1"),
}


@pytest.mark.parametrize("name", UNREADABLE_ENTRIES)
def test_unreadable_entry_changes_nothing(name: str) -> None:
    """Rule: an entry that cannot be read is recognised before anything of it joins the batch."""
    batch = batch_of(entry(4))
    with pytest.raises(UNREADABLE):
        batch.add(Texts(BITCOIN), UNREADABLE_ENTRIES[name])
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
    step = notional_scale(instrument).step
    assert to_units(Decimal(texts.notional(notional)), step) == notional


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
