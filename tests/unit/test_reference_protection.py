"""The reference's rules that protect a market: price band (BND), limits and kill switch (RSK),
status (STA), and in which order an order is refused (CMD-3).
"""

from dataclasses import replace

import pytest

from tests.commands import (
    Amend,
    ArmTimer,
    Cancel,
    Command,
    KillSwitch,
    MassCancel,
    Place,
    SetRules,
    Side,
    Tick,
    iceberg,
    limit,
    market,
    stop,
    stop_limit,
)
from tests.reference import (
    LEVEL_TOTAL_LIMIT_LOTS,
    START_US,
    Cancelled,
    Done,
    MassCancelled,
    Placed,
    ReferenceBook,
    Swept,
)
from tests.unit.test_reference import accepted, book_of, fills, outcome, refused_without_a_trace


def traded_at(price_ticks: int, **rules: int) -> ReferenceBook:
    """An empty book with this last price."""
    book = book_of(limit("m", "sell", price_ticks, 1), limit("t", "buy", price_ticks, 1))
    book.set_rules(SetRules(**rules))  # type: ignore[arg-type]
    return book


# Price band


@pytest.mark.parametrize(("last", "bps", "width"), [(1000, 29, 2), (1000, 30, 3), (9999, 1, 0)])
def test_bnd_1_the_band_is_exact(last: int, bps: int, width: int) -> None:
    for price, side in ((last - width, "buy"), (last + width, "sell")):
        book = traded_at(last, price_band_bps=bps)
        assert isinstance(book.place(limit("a", side, price, 1)), Placed)
    for price in (last - width - 1, last + width + 1):
        for side in ("buy", "sell"):
            book = traded_at(last, price_band_bps=bps)
            assert refused_without_a_trace(book, limit("a", side, price, 1)) == "price_band"


def test_bnd_1_without_a_trade_there_is_no_band() -> None:
    book = ReferenceBook()
    book.set_rules(SetRules(price_band_bps=0))
    assert isinstance(book.place(limit("a", "buy", 5, 1)), Placed)


def test_bnd_1_the_band_of_a_command_is_that_of_its_beginning() -> None:
    """Each of its trades moves the last price, and not its band."""
    book = book_of(*(limit("a", "sell", 100 + n, 1) for n in range(4)), limit("b", "buy", 100, 1))
    book.set_rules(SetRules(price_band_bps=200))
    assert outcome(book, market("b", "buy", 9)) == ("cancelled", "price_band", 2)
    assert outcome(book, market("b", "buy", 9)) == ("cancelled", "no_liquidity", 1)


def test_bnd_2_stop_prices_and_prices_of_pending_stops_are_not_looked_at() -> None:
    book = traded_at(100, price_band_bps=0)
    assert isinstance(book.place(stop("a", "buy", 150, 1)), Placed)
    assert isinstance(book.place(stop_limit("a", "buy", 150, 170, 1)), Placed)
    assert refused_without_a_trace(book, limit("a", "buy", 99, 1)) == "price_band"


@pytest.mark.parametrize("tif", ["ioc", "fok"])
def test_bnd_2_every_limit_order_must_be_inside(tif: str) -> None:
    place = replace(limit("a", "buy", 103, 1), time_in_force=tif)  # type: ignore[arg-type]
    assert refused_without_a_trace(traded_at(100, price_band_bps=200), place) == "price_band"


@pytest.mark.parametrize(("side", "sign"), [("buy", 1), ("sell", -1)])
def test_bnd_3_a_market_order_stops_at_the_band(side: Side, sign: int) -> None:
    book = traded_at(100)
    other: Side = "sell" if side == "buy" else "buy"
    for away in (1, 2, 3):
        accepted(book, limit("a", other, 100 + sign * away, 1))
    book.set_rules(SetRules(price_band_bps=200))
    assert outcome(book.copy(), market("b", side, 2)) == ("filled", None, 2)
    fok = replace(market("b", side, 3), time_in_force="fok")
    assert outcome(book.copy(), fok) == ("cancelled", "fok_unfilled", 0)
    assert outcome(book, market("b", side, 3)) == ("cancelled", "price_band", 2)


def test_bnd_3_a_better_price_than_the_bands_other_end_is_taken() -> None:
    book = traded_at(100)
    accepted(book, limit("a", "sell", 90, 1))
    book.set_rules(SetRules(price_band_bps=100))
    assert fills(accepted(book, market("b", "buy", 1))) == [(4, 90, 1)]


def test_bnd_3_without_makers_beyond_it_is_for_want_of_liquidity() -> None:
    book = traded_at(100, price_band_bps=200)
    assert outcome(book, market("b", "buy", 1)) == ("cancelled", "no_liquidity", 0)


def test_bnd_3_a_triggered_stop_stops_at_the_band() -> None:
    book = book_of(*(limit("a", "sell", 100 + n, 1) for n in range(5)), stop("b", "buy", 100, 9))
    book.set_rules(SetRules(price_band_bps=200))
    accepted(book, limit("x", "buy", 100, 1))
    order = book.order(6)
    assert order is not None
    assert (order.status, order.reason, order.filled_lots) == ("cancelled", "price_band", 2)


# Limits


@pytest.mark.parametrize(
    "place",
    [
        limit("a", "buy", 1, 6),
        market("a", "buy", 6),
        stop("a", "buy", 200, 6),
        stop_limit("a", "buy", 200, 1, 6),
        iceberg("a", "buy", 1, 6, 1),
    ],
    ids=lambda place: place.type,
)
def test_rsk_1_no_order_of_more_than_the_maximum(place: Place) -> None:
    book = traded_at(100, max_order_lots=5)
    assert refused_without_a_trace(book, place) == "risk_limit"
    less = replace(place, quantity_lots=5)
    assert isinstance(book.place(less), Placed)


@pytest.mark.parametrize(
    "place",
    [
        limit("a", "buy", 200, 6),
        stop("a", "buy", 200, 6),
        stop_limit("a", "buy", 101, 200, 6),
        stop_limit("a", "buy", 250, 200, 6),
    ],
    ids=["limit", "stop", "stop_limit", "stop_limit with a stop price beyond"],
)
def test_rsk_2_no_order_of_a_greater_notional(place: Place) -> None:
    book = traded_at(100, max_order_notional=1000)
    assert refused_without_a_trace(book, place) == "risk_limit"
    assert isinstance(book.place(replace(place, quantity_lots=5)), Placed)


def test_rsk_2_of_a_market_order_the_fills_count_that_it_would_make() -> None:
    book = book_of(limit("a", "sell", 100, 4), limit("a", "sell", 200, 4))
    book.set_rules(SetRules(max_order_notional=799))
    assert refused_without_a_trace(book, market("b", "buy", 6)) == "risk_limit"
    fok = replace(market("b", "buy", 9), time_in_force="fok")
    assert outcome(book, fok) == ("cancelled", "fok_unfilled", 0), "it makes none"
    book.set_rules(SetRules(max_order_notional=800))
    assert outcome(book, market("b", "buy", 6)) == ("filled", None, 6)


@pytest.mark.parametrize(
    ("place", "refused"),
    [
        (limit("a", "buy", 100, 1), True),
        (replace(limit("a", "buy", 1, 1), post_only=True), True),
        (replace(limit("a", "buy", 1, 1), time_in_force="gtd", expires_us=START_US + 1), True),
        (replace(stop("a", "buy", 200, 1), time_in_force="fok"), True),
        (replace(limit("a", "buy", 100, 1), time_in_force="ioc"), False),
        (market("a", "buy", 1), False),
        (limit("b", "buy", 100, 1), False),
    ],
)
def test_rsk_3_only_so_many_may_be_open(place: Place, *, refused: bool) -> None:
    """Whether or not it would fill at once; pending stops count."""
    book = book_of(limit("a", "buy", 1, 1), stop("a", "buy", 200, 1), limit("c", "sell", 100, 1))
    book.set_rules(SetRules(max_open_orders=2))
    if refused:
        assert refused_without_a_trace(book, place) == "risk_limit"
        book.cancel(Cancel(2))
    assert isinstance(book.place(place), Placed)


def test_rsk_4_a_kill_switch_refuses_orders_and_amends_alone() -> None:
    book = book_of(limit("a", "buy", 99, 1), limit("a", "buy", 98, 1))
    assert book.set_kill_switch(KillSwitch("a", engaged=True)) == Done(3)
    assert refused_without_a_trace(book, limit("a", "buy", 97, 1)) == "kill_switch"
    assert refused_without_a_trace(book, Amend(1, 97)) == "kill_switch"
    assert isinstance(book.place(limit("b", "buy", 97, 1)), Placed)
    assert isinstance(book.cancel(Cancel(1)), Cancelled)
    assert isinstance(book.mass_cancel(MassCancel("a")), MassCancelled)
    book.set_kill_switch(KillSwitch("a", engaged=False))
    assert isinstance(book.place(limit("a", "buy", 97, 1)), Placed)
    told = [event.detail for event in book.events if event.type == "kill_switch"]
    assert told == ["a|1", "a|"]


# Status


def test_sta_1_an_open_instrument_takes_everything() -> None:
    book = ReferenceBook()
    book.set_rules(SetRules("open"))
    assert isinstance(book.place(limit("a", "buy", 97, 1)), Placed)


def due() -> ReferenceBook:
    """One order past its expiry, one of a client whose timer is due."""
    gtd = replace(limit("a", "buy", 99, 1), time_in_force="gtd", expires_us=START_US + 5)
    book = book_of(gtd, limit("b", "buy", 98, 1), limit("c", "buy", 97, 1))
    book.arm_timer(ArmTimer("b", 5))
    book.tick(Tick(5))
    return book


def test_sta_2_cancel_only_takes_cancels_expiries_and_timers() -> None:
    book = due()
    book.set_rules(SetRules("cancel_only"))
    assert refused_without_a_trace(book, limit("a", "buy", 97, 1)) == "cancel_only"
    assert refused_without_a_trace(book, Amend(3, 96)) == "cancel_only"
    assert isinstance(book.cancel(Cancel(3)), Cancelled)
    assert book.sweep() == Swept(more=False)
    assert [event.type for event in book.events[-2:]] == ["expire", "cancel_after"]
    assert book.queue("buy") == []


@pytest.mark.parametrize(
    "command",
    [limit("a", "buy", 97, 1), Amend(3, 96), Cancel(3), MassCancel("c"), MassCancel("nobody")],
    ids=lambda command: type(command).__name__,
)
def test_sta_3_a_halted_book_stands_still(command: Command) -> None:
    book = due()
    book.set_rules(SetRules("halted"))
    assert refused_without_a_trace(book, command) == "instrument_halted"


def test_sta_3_what_was_due_is_done_first_by_the_sweep() -> None:
    book = due()
    book.set_rules(SetRules("halted"))
    assert book.sweep() == Swept(more=False)
    assert len(book.queue("buy")) == 3
    book.set_rules(SetRules())
    assert book.sweep() == Swept(more=False)
    assert book.queue("buy") == [(97, 1, 3)]


def test_sta_4_rules_are_a_command_and_hold_from_the_next_on() -> None:
    book = ReferenceBook()
    assert book.set_rules(SetRules(max_order_lots=1)) == Done(1)
    event = book.events[-1]
    assert (event.type, event.orders, event.levels, event.detail) == ("rules", (), (), "")
    assert refused_without_a_trace(book, limit("a", "buy", 97, 2)) == "risk_limit"
    book.set_rules(SetRules())
    assert isinstance(book.place(limit("a", "buy", 97, 2)), Placed)


# The order of refusals


def test_cmd_3_an_order_is_refused_in_the_documented_order() -> None:
    """Everything is wrong with it; one thing after the other is put right."""
    place = Place("a", "buy", "limit", "gtd", 9, 110, True, "x", "k", expires_us=START_US)
    book = traded_at(100)
    accepted(book, replace(limit("a", "buy", 50, 1), client_order_id="x", idempotency_key="k"))
    accepted(book, limit("b", "sell", 110, LEVEL_TOTAL_LIMIT_LOTS - 1))
    bad = SetRules("halted", 100, 8, 100, 1)
    book.set_rules(bad)
    book.set_kill_switch(KillSwitch("a", engaged=True))
    steps: list[tuple[Command | None, dict[str, object], str]] = [
        (None, {}, "idempotency_key_reused"),
        (None, {"idempotency_key": "other"}, "instrument_halted"),
        (replace(bad, status="cancel_only"), {}, "cancel_only"),
        (replace(bad, status="open"), {}, "kill_switch"),
        (KillSwitch("a", engaged=False), {}, "expires_in_past"),
        (None, {"expires_us": START_US + 1}, "duplicate_client_order_id"),
        (None, {"client_order_id": "y"}, "risk_limit"),
        (SetRules("open", 100, None, 100, 1), {}, "risk_limit"),
        (SetRules("open", 100, None, None, 1), {}, "risk_limit"),
        (SetRules("open", 100), {}, "price_band"),
        (SetRules("open"), {}, "post_only_would_cross"),
    ]
    for command, change, code in steps:
        if command is not None:
            book.apply(command)
        place = replace(place, **change)  # type: ignore[arg-type]
        assert refused_without_a_trace(book, place) == code
    huge = replace(place, side="sell", price_ticks=110, post_only=False)
    assert refused_without_a_trace(book, huge) == "level_quantity_overflow"


def test_cmd_3_a_stop_that_waits_for_others_is_refused_before_its_own_price_is_looked_at() -> None:
    book = ReferenceBook(max_triggers=1)
    for place in (
        *(limit("m", "sell", 101, 1), limit("m", "sell", 102, 9)),
        *(stop("a", "buy", 101, 1), stop("a", "buy", 101, 1), limit("t", "buy", 101, 1)),
    ):
        accepted(book, place)
    assert refused_without_a_trace(book, stop("b", "buy", 101, 1)) == "triggers_outstanding"
    book.sweep()
    assert refused_without_a_trace(book, stop("b", "buy", 101, 1)) == "stop_would_trigger"
