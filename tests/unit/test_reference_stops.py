"""The reference's rules of stops (STP), and of what a command sets off (CMD-2)."""

from dataclasses import replace

import pytest

from tests.commands import (
    Amend,
    Cancel,
    Place,
    SetRules,
    Side,
    Tick,
    TimeInForce,
    iceberg,
    limit,
    market,
    stop,
    stop_limit,
)
from tests.reference import (
    LEVEL_TOTAL_LIMIT_LOTS,
    START_US,
    Amended,
    Event,
    Order,
    ReferenceBook,
    Swept,
)
from tests.unit.test_reference import accepted, book_of, fills, refused_without_a_trace


def triggers(book: ReferenceBook) -> list[Event]:
    return [event for event in book.events if event.type == "trigger"]


def ends(book: ReferenceBook) -> list[tuple[int, str, str | None, int]]:
    """(number, status, reason, filled) of each stop right after it was triggered."""
    orders = [event.orders[0] for event in triggers(book)]
    return [(o.number, o.status, o.reason, o.filled_lots) for o in orders]


def trade_at(book: ReferenceBook, price_ticks: int) -> None:
    """A trade of one lot between two who own nothing else; it leaves nothing behind."""
    accepted(book, limit("maker", "sell", price_ticks, 1))
    accepted(book, limit("taker", "buy", price_ticks, 1))


def order_of(book: ReferenceBook, number: int) -> Order:
    order = book.order(number)
    assert order is not None
    return order


def ladder(*stops: Place, **limits: int) -> ReferenceBook:
    """Asks of one lot at 101 to 106 are the orders 1 to 6; the stops follow."""
    book = ReferenceBook(**limits)
    for ticks in range(101, 107):
        accepted(book, limit("ann", "sell", ticks, 1))
    for one in stops:
        accepted(book, one)
    return book


def test_stp_1_a_stop_is_pending_outside_the_book_and_counted_as_open() -> None:
    book = book_of(stop("ann", "buy", 105, 5), stop_limit("ann", "sell", 95, 94, 5))
    assert book.queue("buy") == book.queue("sell") == []
    assert [order.number for order in book.open_orders("ann")] == [1, 2]
    assert {order_of(book, n).status for n in (1, 2)} == {"pending"}
    assert book.events[0].levels == ()
    book.set_rules(SetRules(max_open_orders=2))
    assert refused_without_a_trace(book, limit("ann", "buy", 1, 1)) == "risk_limit"


def test_stp_1_quotes_do_not_meet_it() -> None:
    book = book_of(stop_limit("ann", "buy", 105, 110, 5))
    assert fills(accepted(book, limit("bob", "sell", 106, 5))) == []


@pytest.mark.parametrize(
    ("side", "trades", "triggered"),
    [
        ("buy", [104, 104], False),
        ("buy", [104, 105], True),
        ("buy", [104, 106], True),
        ("sell", [106, 106], False),
        ("sell", [106, 105], True),
        ("sell", [106, 104], True),
    ],
)
def test_stp_2_a_trade_at_the_stop_price_or_beyond_triggers(
    side: Side, trades: list[int], *, triggered: bool
) -> None:
    book = book_of(stop("ann", side, 105, 5))
    for price_ticks in trades:
        trade_at(book, price_ticks)
    assert bool(triggers(book)) == triggered


def test_stp_2_quotes_never_trigger() -> None:
    book = book_of(stop("ann", "buy", 105, 5), limit("bob", "buy", 110, 1))
    assert triggers(book) == []


def test_stp_2_every_price_of_a_command_counts() -> None:
    """The bids at 100 and 99 trade; the sell stop at 100 is triggered by the first, the buy stop
    at 100 too, though the command ended lower.
    """
    book = book_of(
        limit("ann", "buy", 100, 1),
        limit("ann", "buy", 99, 1),
        stop("bob", "buy", 100, 1),
        stop("bob", "sell", 99, 1),
    )
    accepted(book, market("cyd", "sell", 2))
    assert [event.orders[0].number for event in triggers(book)] == [3, 4]


@pytest.mark.parametrize(
    ("side", "ticks", "refused"),
    [
        ("buy", 99, True),
        ("buy", 100, True),
        ("buy", 101, False),
        ("sell", 101, True),
        ("sell", 100, True),
        ("sell", 99, False),
    ],
)
def test_stp_3_one_that_the_last_price_has_reached_is_refused(
    side: Side, ticks: int, *, refused: bool
) -> None:
    book = book_of(limit("ann", "sell", 100, 1), limit("bob", "buy", 100, 1))
    if refused:
        assert refused_without_a_trace(book, stop("ann", side, ticks, 1)) == "stop_would_trigger"
    else:
        accepted(book, stop("ann", side, ticks, 1))


def test_stp_4_buys_rise_sells_fall_and_equals_go_by_place() -> None:
    book = book_of(
        limit("ann", "buy", 96, 1),
        limit("ann", "sell", 104, 1),
        stop("s98", "sell", 98, 1),
        stop("s99", "sell", 99, 1),
        stop("b102", "buy", 102, 1),
        stop("b101", "buy", 101, 1),
        stop("b101too", "buy", 101, 1),
        limit("ann", "buy", 97, 1),
        limit("ann", "buy", 98, 1),
        limit("ann", "sell", 102, 1),
    )
    # A command trades one way only; where one stop is carried out per call, both ways wait.
    book.max_triggers = 1
    accepted(book, limit("x", "buy", 102, 1))
    assert [e.orders[0].client for e in triggers(book)] == ["b101"]
    accepted(book, limit("x", "sell", 98, 1))
    while book.sweep().more:
        pass
    assert [e.orders[0].client for e in triggers(book)] == [
        *("b101", "b101too", "b102", "s99", "s98")
    ]


def test_stp_4_each_is_an_event_of_its_own_and_may_trigger_more() -> None:
    book = ladder(
        stop("bob", "buy", 103, 1), stop("cyd", "buy", 101, 1), stop("dan", "buy", 102, 1)
    )
    accepted(book, limit("x", "buy", 101, 1))
    assert [(e.sequence, e.orders[0].number, len(e.trades)) for e in triggers(book)] == [
        (11, 8, 1),
        (12, 9, 1),
        (13, 7, 1),
    ]
    assert book.last_price_ticks == 104
    assert book.waiting() is None


def test_cmd_2_a_trigger_has_its_own_sequence_after_its_command() -> None:
    book = ladder(stop("bob", "buy", 101, 1))
    answer = accepted(book, limit("x", "buy", 101, 1))
    assert answer.order.number == 8
    event = book.events[-1]
    assert (event.sequence, event.type) == (9, "trigger")
    trade = event.trades[0]
    assert (trade.taker, trade.maker, trade.sequence, trade.index) == (7, 2, 9, 1)
    assert (order_of(book, 7).number, order_of(book, 7).sequence) == (7, 9)


@pytest.mark.parametrize(
    ("tif", "lots", "end"),
    [
        ("gtc", 5, ("filled", None, 5)),
        ("gtc", 6, ("cancelled", "no_liquidity", 5)),
        ("ioc", 6, ("cancelled", "no_liquidity", 5)),
        ("fok", 6, ("cancelled", "fok_unfilled", 0)),
        ("fok", 5, ("filled", None, 5)),
    ],
)
def test_stp_5_a_stop_comes_in_as_a_market_order(
    tif: TimeInForce, lots: int, end: tuple[str, str | None, int]
) -> None:
    book = ladder(replace(stop("bob", "buy", 101, lots), time_in_force=tif))
    accepted(book, limit("x", "buy", 101, 1))
    assert ends(book) == [(7, *end)]


@pytest.mark.parametrize(
    ("tif", "end"),
    [
        ("gtc", ("partially_filled", None, 2)),
        ("ioc", ("cancelled", "ioc_remainder", 2)),
        ("fok", ("cancelled", "fok_unfilled", 0)),
    ],
)
def test_stp_5_a_stop_limit_comes_in_as_a_limit_order(
    tif: TimeInForce, end: tuple[str, str | None, int]
) -> None:
    book = ladder(replace(stop_limit("bob", "buy", 101, 103, 3), time_in_force=tif))
    accepted(book, limit("x", "buy", 101, 1))
    assert ends(book) == [(7, *end)]
    assert book.queue("buy") == ([(103, 1, 7)] if tif == "gtc" else [])


def test_plc_2_a_triggered_stop_rests_behind_those_who_rested_before() -> None:
    book = book_of(stop_limit("bob", "buy", 105, 100, 3), limit("ann", "buy", 100, 1))
    trade_at(book, 105)
    assert book.queue("buy") == [(100, 1, 2), (100, 3, 1)]
    assert order_of(book, 1).place == (5, 0)


def test_ice_1_a_stop_limit_may_become_an_iceberg() -> None:
    book = book_of(replace(stop_limit("bob", "buy", 105, 100, 9), display_lots=4))
    assert order_of(book, 1).shown_lots == 0
    trade_at(book, 105)
    assert order_of(book, 1).shown_lots == 4
    assert book.levels("buy") == [(100, 4, 1)]


def test_stp_6_only_so_many_are_carried_out_in_one_call() -> None:
    stops = [stop(f"c{n}", "buy", 101, 1) for n in range(4)]
    book = ladder(*stops, max_triggers=2)
    accepted(book, limit("x", "buy", 101, 1))
    assert [number for number, *_ in ends(book)] == [7, 8]
    assert book.waiting() == order_of(book, 9)
    assert book.sweep() == Swept(more=False)
    assert [number for number, *_ in ends(book)] == [7, 8, 9, 10]


def test_stp_6_the_makers_met_are_counted_over_the_whole_call() -> None:
    book = ladder(stop("b", "buy", 101, 2), stop("c", "buy", 101, 2), max_fills=4)
    accepted(book, limit("x", "buy", 101, 1))
    # One maker by the order, two by the first stop; the second would need two more.
    assert ends(book) == [(7, "filled", None, 2)]
    assert book.sweep() == Swept(more=False)
    assert ends(book)[1:] == [(8, "filled", None, 2)]


def test_stp_6_in_the_sweep_the_first_one_has_the_full_budget() -> None:
    book = ladder(stop("b", "buy", 101, 9), stop("c", "buy", 101, 1), max_fills=3)
    accepted(book, limit("x", "buy", 101, 1))
    assert ends(book) == []
    assert book.sweep() == Swept(more=True)
    assert ends(book) == [(7, "cancelled", "fill_limit", 3)]
    assert book.sweep() == Swept(more=False)
    assert ends(book)[1:] == [(8, "filled", None, 1)]


def test_stp_6_one_that_meets_nobody_needs_no_budget() -> None:
    book = book_of(
        limit("ann", "sell", 101, 1),
        stop_limit("bob", "buy", 101, 90, 5),
        limit("ann", "sell", 102, 1),
        max_fills=1,
    )
    accepted(book, limit("x", "buy", 101, 1))
    assert ends(book) == [(2, "open", None, 0)]


def test_stp_6_those_that_wait_go_on_after_the_next_command_that_trades() -> None:
    stops = [stop(f"c{n}", "buy", 101, 1) for n in range(2)]
    book = ladder(*stops, max_triggers=1)
    accepted(book, limit("x", "buy", 101, 1))
    accepted(book, limit("x", "buy", 90, 1))
    assert len(triggers(book)) == 1, "that one did not trade"
    accepted(book, market("x", "sell", 1))
    assert [number for number, *_ in ends(book)] == [7, 8]


def test_stp_6_an_amend_that_trades_triggers_too() -> None:
    book = ladder(stop("b", "buy", 101, 1), limit("x", "buy", 90, 1))
    assert isinstance(book.amend(Amend(8, 101)), Amended)
    assert [event.type for event in book.events[8:]] == ["amend", "trigger"]


def waiting() -> ReferenceBook:
    """Two triggered buy stops wait at 101, one sell stop at 95 does not."""
    stops = [stop(f"c{n}", "buy", 101, 1) for n in range(3)]
    book = ladder(*stops, stop("d", "sell", 95, 1), max_triggers=1)
    accepted(book, limit("x", "buy", 101, 1))
    assert book.waiting() == order_of(book, 8)
    return book


def test_stp_7_while_stops_wait_no_stop_price_is_new_or_changed() -> None:
    book = waiting()
    assert refused_without_a_trace(book, stop("e", "buy", 200, 1)) == "triggers_outstanding"
    change = Amend(10, stop_price_ticks=90)
    assert refused_without_a_trace(book, change) == "triggers_outstanding"
    assert isinstance(book.amend(Amend(8, quantity_lots=2, stop_price_ticks=101)), Amended)
    assert book.waiting() == order_of(book, 9), "8 lost its place"


def test_stp_7_once_none_waits_stops_are_taken_and_earlier_trades_forgotten() -> None:
    stops = [stop_limit(f"c{n}", "buy", 101, 50, 1) for n in range(3)]
    book = ladder(*stops, limit("y", "buy", 95, 1), max_triggers=1)
    accepted(book, limit("x", "buy", 101, 1))
    accepted(book, market("x", "sell", 1))
    assert (book.waiting(), book.reached()) == (order_of(book, 9), (95, 101))
    book.cancel(Cancel(9))
    assert (book.waiting(), book.reached()) == (None, None)
    # 100 was reached before, but not since it is there.
    number = accepted(book, stop("e", "buy", 100, 1)).order.number
    assert book.sweep() == Swept(more=False)
    accepted(book, limit("y", "buy", 94, 1))
    accepted(book, market("x", "sell", 1))
    assert order_of(book, number).status == "pending"


def test_stp_7_prices_reached_while_stops_wait_are_kept() -> None:
    book = waiting()
    assert book.reached() == (101, 102)
    accepted(book, limit("y", "buy", 95, 1))
    book.set_rules(SetRules("cancel_only"))
    assert book.sweep() == Swept(more=False), "nothing is triggered but in an open instrument"
    book.set_rules(SetRules())
    accepted(book, market("z", "sell", 1))
    # The next buy stop went first, and bought at 103; the sell stop waits with the other now.
    assert book.reached() == (95, 103)
    while book.sweep().more:
        pass
    assert [number for number, *_ in ends(book)] == [7, 8, 9, 10]


@pytest.mark.parametrize("status", ["cancel_only", "halted"])
def test_stp_8_nothing_is_triggered_unless_it_is_open(status: str) -> None:
    book = waiting()
    book.set_rules(SetRules(status))  # type: ignore[arg-type]
    assert book.sweep() == Swept(more=False)
    assert len(triggers(book)) == 1
    book.set_rules(SetRules())
    assert book.sweep() == Swept(more=True)
    assert len(triggers(book)) == 2


@pytest.mark.parametrize(
    ("price_ticks", "end"), [(106, ("cancelled", "price_band", 0)), (105, ("filled", None, 1))]
)
def test_stp_8_a_stop_limit_outside_the_band_is_cancelled(
    price_ticks: int, end: tuple[str, str | None, int]
) -> None:
    book = ladder(stop_limit("b", "buy", 101, price_ticks, 1))
    book.set_rules(SetRules(price_band_bps=397))  # 4 ticks of 101
    accepted(book, limit("x", "buy", 101, 1))
    assert ends(book) == [(7, *end)]


def test_stp_8_one_past_its_expiry_expires_by_its_trigger() -> None:
    dated = replace(stop("b", "buy", 101, 1), time_in_force="gtd", expires_us=START_US + 5)
    book = ladder(dated)
    book.tick(Tick(5))
    accepted(book, limit("x", "buy", 101, 1))
    assert ends(book) == [(7, "expired", "expired", 0)]
    assert book.events[-1].trades == ()


def test_stp_8_a_remainder_that_its_level_cannot_hold_is_cancelled() -> None:
    book = book_of(
        limit("a", "buy", 100, LEVEL_TOTAL_LIMIT_LOTS - 2),
        stop_limit("b", "buy", 105, 100, 3),
        limit("a", "sell", 105, 1),
    )
    accepted(book, limit("x", "buy", 105, 1))
    assert ends(book) == [(2, "cancelled", "level_quantity_overflow", 0)]


def test_stp_8_limits_are_not_looked_at_again() -> None:
    book = ladder(stop("b", "buy", 101, 3), stop_limit("b", "buy", 101, 106, 1))
    book.set_rules(SetRules(max_order_lots=1, max_order_notional=105, max_open_orders=1))
    accepted(book, limit("x", "buy", 101, 1))
    assert ends(book) == [(7, "filled", None, 3), (8, "filled", None, 1)]


def test_slf_8_makers_of_a_stop_may_be_icebergs() -> None:
    book = book_of(
        iceberg("a", "sell", 101, 4, 1),
        replace(stop("a", "buy", 101, 2), self_trade_prevention="decrement"),
    )
    accepted(book, limit("x", "buy", 101, 1))
    assert ends(book) == [(2, "cancelled", "self_trade_prevented", 0)]
    assert book.queue("sell") == [(101, 1, 1)]
