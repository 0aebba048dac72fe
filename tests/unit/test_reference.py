"""Proves the proof side: the reference matcher against the answers that others gave, and against
the rules of plain orders one by one. Tests name the rules of lua/RULES.md by their ids; those of
other subjects are in test_reference_….py beside this one.
"""

import hashlib
import itertools
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tests
from tests import strategies, tapes, truth
from tests.commands import (
    Amend,
    ArmTimer,
    Cancel,
    Command,
    KillSwitch,
    Place,
    SetRules,
    Side,
    TimeInForce,
    iceberg,
    limit,
    market,
    stop,
)
from tests.reference import (
    LEVEL_TOTAL_LIMIT_LOTS,
    MAX_FILLS,
    START_US,
    Amended,
    Cancelled,
    LevelChange,
    MassCancelled,
    Order,
    Placed,
    ReferenceBook,
    Refused,
    Swept,
    Ticked,
)

SEEDS = (1, 2, 3)
RULES = Path(tests.__file__).parents[1] / "lua" / "RULES.md"


def accepted(book: ReferenceBook, place: Place) -> Placed:
    """Places an order that must not be refused."""
    answer = book.place(place)
    assert isinstance(answer, Placed), answer
    return answer


def fills(answer: Placed | Amended) -> list[tuple[int, int, int]]:
    """(maker, price, quantity) of each trade of the answer."""
    return [(trade.maker, trade.price_ticks, trade.quantity_lots) for trade in answer.trades]


def outcome(book: ReferenceBook, place: Place) -> tuple[str, str | None, int]:
    """Status, reason and filled lots of an accepted order."""
    order = accepted(book, place).order
    return order.status, order.reason, order.filled_lots


def book_of(*places: Place, max_fills: int = MAX_FILLS) -> ReferenceBook:
    """A book on which these orders were accepted, numbered from 1."""
    book = ReferenceBook(max_fills)
    for place in places:
        accepted(book, place)
    return book


def refused_without_a_trace(book: ReferenceBook, command: Command) -> str:
    """The refusal's code, after checking that the book is as it was."""
    before = (book.canonical_text(), list(book.events))
    answer = book.apply(command)
    assert isinstance(answer, Refused), answer
    assert (book.canonical_text(), book.events) == before
    return answer.code


# The answers that others gave


class ReferenceVenue:
    """The reference matcher as the truth files' venue."""

    def __init__(self) -> None:
        self.book = ReferenceBook()

    def place(self, place: Place) -> truth.Taken:
        answer = accepted(self.book, place)
        return truth.Taken(answer.order.number, [truth.Fill(*fill) for fill in fills(answer)])

    def cancel(self, number: int) -> bool:
        return isinstance(self.book.cancel(Cancel(number)), Cancelled)

    def amend(self, number: int, quantity_lots: int) -> bool:
        answer = self.book.amend(Amend(number, quantity_lots=quantity_lots))
        return not isinstance(answer, Refused)

    def standing(self, number: int) -> truth.Standing:
        order = self.book.order(number)
        assert order is not None
        return truth.Standing(order.quantity_lots, order.filled_lots, order.reason)

    def queue(self, side: Side) -> list[tuple[int, int, int]]:
        return self.book.queue(side)


class ReplacingVenue(ReferenceVenue):
    """One that has a replace of its own."""

    def replace(self, number: int, place: Place) -> truth.Taken | None:
        return self.place(place) if self.cancel(number) else None


class AmendingVenue(ReplacingVenue):
    """One that amends, but where an amend would keep a place that a replace loses (AMD-3)."""

    def replace(self, number: int, place: Place) -> truth.Taken | None:
        order = self.book.order(number)
        assert order is not None
        lots = order.filled_lots + place.quantity_lots
        if order.price_ticks == place.price_ticks and lots <= order.quantity_lots:
            return super().replace(number, place)
        answer = self.book.amend(Amend(number, place.price_ticks, lots))
        if isinstance(answer, Refused):
            return None
        return truth.Taken(number, [truth.Fill(*fill) for fill in fills(answer)])


CASES = [case for path in truth.case_files() for case in truth.load_cases(path)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name[:60])
@pytest.mark.parametrize("venue", [ReferenceVenue, ReplacingVenue, AmendingVenue])
def test_gives_the_published_answer(venue: type[ReferenceVenue], case: truth.Case) -> None:
    truth.check_case(venue(), case)


@pytest.mark.parametrize("path", truth.flash1_files(), ids=lambda path: path.name)
@pytest.mark.parametrize("venue", [ReferenceVenue, ReplacingVenue, AmendingVenue])
def test_gives_the_fills_of_flash1(venue: type[ReferenceVenue], path: Path) -> None:
    played = venue()
    rows = truth.load_flash1(path)
    truth.check_flash1(played, rows)
    assert sum(len(row.fills) for row in rows) == sum(len(e.trades) for e in played.book.events)
    played.book.check_invariants()


def test_truth_files_are_all_there() -> None:
    assert len(CASES) >= 35
    assert all(len(truth.load_flash1(path)) == 20_000 for path in truth.flash1_files())


def test_no_published_case_is_skipped() -> None:
    assert all(truth.needs_supported(case) for case in CASES)


def case_with(**expected: object) -> truth.Case:
    """One bid of 5 at 10, of which 2 trade and which is then cancelled twice."""
    steps = (
        truth.Step("new", "a", "buy", "limit", "GTC", 10, 5),
        truth.Step("new", "b", "sell", "market", None, None, 2),
        truth.Step("new", "c", "buy", "limit", "GTC", 9, 1),
        truth.Step("cancel", "a"),
        truth.Step("cancel", "a"),
    )
    return truth.Case("made up", "here", frozenset(), steps, expected)


CHECKED: dict[str, tuple[object, object]] = {  # what holds, and what nearly does
    "trades": ([["a", "b", 10, 2]], [["a", "b", 10, 1]]),
    "found": ([True, False], [True, True]),
    "book": ({"bids": [[9, 1, "c"]], "asks": []}, {"bids": [[9, 1, "a"]], "asks": []}),
    "resting": (["c"], ["a", "c"]),
    "best_changes": ([["buy", 10, 5], ["buy", 10, 3], ["buy", 9, 1]], [["buy", 10, 5]]),
    "expect": (
        {
            "a": {"executed": 2, "prevented": 0, "state": "gone"},
            "b": {"executed": 2, "prevented": 0, "state": "filled"},
            "c": {"executed": 0, "prevented": 0, "state": "resting"},
        },
        {
            "a": {"executed": 2, "prevented": 0, "state": "resting"},
            "b": {"executed": 2, "prevented": 0, "state": "filled"},
            "c": {"executed": 0, "prevented": 0, "state": "resting"},
        },
    ),
}


def test_every_kind_of_check_is_tried() -> None:
    assert CHECKED.keys() == truth.CHECKS


@pytest.mark.parametrize("check", sorted(CHECKED))
def test_a_check_passes_what_holds_and_fails_what_nearly_does(check: str) -> None:
    right, wrong = CHECKED[check]
    truth.check_case(ReferenceVenue(), case_with(**{check: right}))
    with pytest.raises(AssertionError, match=f"made up: {check}"):
        truth.check_case(ReferenceVenue(), case_with(**{check: wrong}))


def test_a_case_that_states_something_unknown_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps({"case": "x", "source": "", "needs": [], "steps": [], "fees": 1}))
    with pytest.raises(ValueError, match="fees"):
        truth.load_cases(path)


# Price-time priority


@pytest.mark.parametrize(("side", "best", "worse"), [("buy", 101, 102), ("sell", 102, 101)])
def test_mat_1_better_price_trades_first_whenever_it_came(
    side: Side, best: int, worse: int
) -> None:
    resting: Side = "sell" if side == "buy" else "buy"
    book = book_of(limit("a", resting, worse, 5), limit("b", resting, best, 5))
    assert fills(accepted(book, market("c", side, 10))) == [(2, best, 5), (1, worse, 5)]


def test_mat_1_first_come_first_served_at_one_price() -> None:
    book = book_of(*(limit("a", "sell", 100, 5) for _ in range(3)))
    assert fills(accepted(book, limit("b", "buy", 100, 12))) == [
        (1, 100, 5),
        (2, 100, 5),
        (3, 100, 2),
    ]
    assert book.queue("sell") == [(100, 3, 3)]


def test_mat_1_a_partial_fill_keeps_its_place() -> None:
    book = book_of(limit("a", "buy", 100, 5), limit("b", "buy", 100, 5))
    accepted(book, market("c", "sell", 2))
    assert book.queue("buy") == [(100, 3, 1), (100, 5, 2)]


def test_mat_2_trades_at_the_makers_price() -> None:
    book = book_of(limit("a", "sell", 100, 5))
    answer = accepted(book, limit("b", "buy", 110, 5))
    assert fills(answer) == [(1, 100, 5)]
    assert answer.order.notional == 500


@pytest.mark.parametrize(("side", "price"), [("buy", 99), ("sell", 101)])
def test_mat_3_does_not_trade_through_its_limit(side: Side, price: int) -> None:
    book = book_of(limit("a", "sell" if side == "buy" else "buy", 100, 5))
    answer = accepted(book, limit("b", side, price, 5))
    assert (answer.order.status, answer.trades) == ("open", ())


def test_mat_1_prices_are_ordered_as_numbers() -> None:
    book = book_of(limit("a", "sell", 1000, 1), limit("a", "sell", 99, 1), limit("a", "buy", 9, 1))
    accepted(book, limit("a", "buy", 10, 1))
    assert [price for price, *_ in book.queue("sell")] == [99, 1000]
    assert [price for price, *_ in book.queue("buy")] == [10, 9]


def test_slf_1_an_owners_orders_trade_with_each_other() -> None:
    book = book_of(limit("a", "sell", 100, 5))
    assert fills(accepted(book, limit("a", "buy", 100, 5))) == [(1, 100, 5)]


# What becomes of a remainder


def with_asks(*lots: int, max_fills: int = MAX_FILLS) -> ReferenceBook:
    """Asks of these sizes at 100, 101, …"""
    asks = (limit("a", "sell", 100 + n, size) for n, size in enumerate(lots))
    return book_of(*asks, max_fills=max_fills)


def bid(quantity_lots: int, tif: TimeInForce = "gtc", price_ticks: int = 101) -> Place:
    """A bid that reaches the first two of with_asks."""
    place = limit("b", "buy", price_ticks, quantity_lots)
    return replace(place, time_in_force=tif)


def test_mat_5_a_gtc_remainder_rests_at_its_limit() -> None:
    book = with_asks(5, 5, 5)
    assert outcome(book, bid(12)) == ("partially_filled", None, 10)
    assert book.queue("buy") == [(101, 2, 4)]
    assert book.queue("sell") == [(102, 5, 3)]


def test_mat_5_an_exact_fill_leaves_nothing() -> None:
    book = with_asks(5, 5)
    assert outcome(book, bid(10)) == ("filled", None, 10)
    assert book.queue("buy") == book.queue("sell") == []


@pytest.mark.parametrize(("quantity", "filled"), [(12, 10), (6, 6)])
def test_mat_5_an_ioc_remainder_is_cancelled(quantity: int, filled: int) -> None:
    ended = ("filled", None) if quantity == filled else ("cancelled", "ioc_remainder")
    assert outcome(with_asks(5, 5, 5), bid(quantity, "ioc")) == (*ended, filled)


def test_mat_5_an_ioc_that_meets_nothing_is_accepted_and_cancelled() -> None:
    book = ReferenceBook()
    assert outcome(book, bid(1, "ioc")) == ("cancelled", "ioc_remainder", 0)
    assert book.sequence == 1


def test_mat_5_a_market_remainder_is_cancelled_for_want_of_liquidity() -> None:
    book = with_asks(5, 5)
    assert outcome(book, market("b", "buy", 11)) == ("cancelled", "no_liquidity", 10)
    assert outcome(book, market("b", "buy", 1)) == ("cancelled", "no_liquidity", 0)


def test_mat_6_fok_fills_whole_across_levels() -> None:
    assert outcome(with_asks(5, 5), bid(10, "fok")) == ("filled", None, 10)


def test_mat_6_fok_short_by_one_trades_nothing_yet_takes_a_sequence() -> None:
    book = with_asks(5, 5, 5)
    assert outcome(book, bid(11, "fok")) == ("cancelled", "fok_unfilled", 0)
    assert book.sequence == 4
    assert [total for _, total, _ in book.levels("sell")] == [5, 5, 5]
    assert (book.events[-1].trades, book.events[-1].levels) == ((), ())


def test_mat_6_market_fok_short_of_liquidity_is_fok_unfilled() -> None:
    place = replace(market("b", "buy", 11), time_in_force="fok")
    assert outcome(with_asks(5, 5), place) == ("cancelled", "fok_unfilled", 0)


# The fill limit


@pytest.mark.parametrize("tif", ["gtc", "ioc"])
def test_mat_4_the_fill_limit_cancels_what_would_still_trade(tif: TimeInForce) -> None:
    book = with_asks(1, 1, 1, max_fills=2)
    assert outcome(book, bid(9, tif, 105)) == ("cancelled", "fill_limit", 2)
    assert book.queue("buy") == []
    assert book.queue("sell") == [(102, 1, 3)]


def test_mat_4_the_fill_limit_ends_a_market_order() -> None:
    book = with_asks(1, 1, 1, max_fills=2)
    assert outcome(book, market("b", "buy", 3)) == ("cancelled", "fill_limit", 2)


def test_mat_6_a_fok_that_needs_more_fills_than_the_limit_trades_nothing() -> None:
    book = with_asks(1, 1, 1, max_fills=2)
    assert outcome(book, bid(3, "fok", 105)) == ("cancelled", "fill_limit", 0)


def test_mat_6_a_fok_whose_makers_run_out_at_the_limit_is_fok_unfilled() -> None:
    book = with_asks(1, 1, max_fills=2)
    assert outcome(book, bid(3, "fok", 105)) == ("cancelled", "fok_unfilled", 0)


def test_mat_6_a_fok_that_needs_exactly_the_limit_fills() -> None:
    book = with_asks(1, 1, 1, max_fills=2)
    assert outcome(book, bid(2, "fok", 105)) == ("filled", None, 2)


@pytest.mark.parametrize(
    ("tif", "ended"),
    [("gtc", ("partially_filled", None)), ("ioc", ("cancelled", "ioc_remainder"))],
)
def test_mat_4_reaching_the_limit_with_no_maker_left_is_no_fill_limit(
    tif: TimeInForce, ended: tuple[str, str | None]
) -> None:
    book = with_asks(1, 1, 1, max_fills=2)
    assert outcome(book, bid(3, tif, 101)) == (*ended, 2)


# post_only


@pytest.mark.parametrize("price", [100, 101])
def test_mat_7_post_only_that_would_cross_is_refused(price: int) -> None:
    place = replace(bid(1, price_ticks=price), post_only=True)
    assert refused_without_a_trace(with_asks(5), place) == "post_only_would_cross"


def test_mat_7_post_only_one_tick_away_rests() -> None:
    book = with_asks(5)
    assert outcome(book, replace(bid(1, price_ticks=99), post_only=True)) == ("open", None, 0)


# Cancel


def test_cxl_1_cancel_takes_a_sequence_and_the_order_off_the_book() -> None:
    book = book_of(limit("a", "buy", 100, 5))
    answer = book.cancel(Cancel(1))
    assert isinstance(answer, Cancelled)
    assert (answer.order.status, answer.order.reason) == ("cancelled", "cancelled_by_client")
    assert (answer.order.sequence, book.sequence, book.queue("buy")) == (2, 2, [])
    assert book.events[-1].levels == (LevelChange("buy", 100, 0),)


def test_cxl_1_cancel_keeps_what_was_filled() -> None:
    book = book_of(limit("a", "buy", 100, 5), market("b", "sell", 2))
    book.cancel(Cancel(1))
    order = book.order(1)
    assert order is not None
    assert (order.filled_lots, order.remaining_lots, order.notional) == (2, 3, 200)


def test_cxl_1_cancel_of_an_order_that_is_over_is_refused() -> None:
    book = book_of(limit("a", "buy", 100, 5), market("b", "sell", 5), market("b", "buy", 1))
    codes = {refused_without_a_trace(book, Cancel(number)) for number in (1, 2, 3)}
    assert codes == {"order_not_open"}


def test_cxl_1_cancel_twice_is_refused() -> None:
    book = book_of(limit("a", "buy", 100, 5))
    book.cancel(Cancel(1))
    assert refused_without_a_trace(book, Cancel(1)) == "order_not_open"


@pytest.mark.parametrize("number", [0, 2, 99])
def test_cxl_1_cancel_of_a_number_that_is_no_order_is_refused(number: int) -> None:
    book = book_of(limit("a", "buy", 100, 5))
    book.cancel(Cancel(1))  # takes sequence 2, which is a cancel and no order
    assert refused_without_a_trace(book, Cancel(number)) == "order_not_found"


# client_order_id


def named(client: str, name: str, price_ticks: int = 100) -> Place:
    """A resting bid with a client_order_id."""
    return replace(limit(client, "buy", price_ticks, 5), client_order_id=name)


def test_cmd_5_client_order_id_of_an_open_order_is_refused() -> None:
    book = book_of(named("a", "x"))
    assert refused_without_a_trace(book, named("a", "x", 90)) == "duplicate_client_order_id"


def test_cmd_5_client_order_id_of_a_partially_filled_order_is_refused() -> None:
    book = book_of(named("a", "x"), market("b", "sell", 1))
    assert refused_without_a_trace(book, named("a", "x")) == "duplicate_client_order_id"


def test_cmd_5_client_order_id_is_the_clients_own() -> None:
    book = book_of(named("a", "x"), named("b", "x"), named("a", "y"))
    assert book.sequence == 3


def test_cmd_5_client_order_id_is_free_after_cancel_and_fill() -> None:
    book = book_of(named("a", "x"))
    book.cancel(Cancel(1))
    accepted(book, named("a", "x"))
    accepted(book, market("b", "sell", 5))
    accepted(book, named("a", "x"))


def test_cmd_5_client_order_id_of_an_order_that_never_rested_is_free() -> None:
    ioc = replace(named("a", "x"), time_in_force="ioc")
    assert book_of(ioc, ioc).sequence == 2


# Idempotency


def keyed(place: Place, key: str = "k") -> Place:
    """The same order with an idempotency key."""
    return replace(place, idempotency_key=key)


def test_cmd_4_the_same_key_and_payload_get_the_first_answer_again() -> None:
    book = with_asks(5)
    first = accepted(book, keyed(bid(7)))
    book.cancel(Cancel(2))
    before = book.digest()
    assert accepted(book, keyed(bid(7))) == replace(first, replayed=True)
    assert (book.digest(), book.sequence) == (before, 3)


def test_cmd_4_the_same_key_with_another_payload_is_refused() -> None:
    book = book_of(keyed(bid(7)))
    assert refused_without_a_trace(book, keyed(bid(8))) == "idempotency_key_reused"


@pytest.mark.parametrize(
    "change",
    [
        {"client_order_id": "z"},
        {"post_only": True},
        {"price_ticks": 1},
        {"side": "sell"},
        {"stop_price_ticks": 1},
        {"display_lots": 1},
        {"expires_us": 1},
        {"self_trade_prevention": "decrement"},
    ],
)
def test_cmd_4_every_field_is_part_of_the_payload(change: dict[str, object]) -> None:
    book = book_of(keyed(bid(7)))
    other = replace(keyed(bid(7)), **change)  # type: ignore[arg-type]
    assert refused_without_a_trace(book, other) == "idempotency_key_reused"


def test_cmd_4_a_key_is_the_clients_own() -> None:
    book = book_of(keyed(limit("a", "buy", 100, 5)), keyed(limit("b", "buy", 100, 6)))
    assert book.sequence == 2


def test_cmd_1_a_refused_order_leaves_its_key_free() -> None:
    book = with_asks(5)
    refused = replace(keyed(bid(1, price_ticks=100)), post_only=True)
    assert refused_without_a_trace(book, refused) == "post_only_would_cross"
    assert not accepted(book, keyed(bid(2))).replayed


def test_cmd_4_idempotency_comes_before_every_other_check() -> None:
    place = keyed(named("a", "x"))
    book = book_of(place)  # again, it would be a duplicate client_order_id
    assert accepted(book, place).replayed
    other = replace(place, quantity_lots=1)
    assert refused_without_a_trace(book, other) == "idempotency_key_reused"


def test_cmd_4_a_cancelled_fok_is_an_answer_to_replay() -> None:
    book = book_of(keyed(bid(7, "fok")))
    accepted(book, limit("a", "sell", 100, 7))
    assert accepted(book, keyed(bid(7, "fok"))).order.reason == "fok_unfilled"


# Level totals


def test_mat_8_a_level_total_stays_below_its_limit() -> None:
    book = book_of(limit("a", "buy", 100, LEVEL_TOTAL_LIMIT_LOTS - 2))
    assert refused_without_a_trace(book, limit("a", "buy", 100, 2)) == "level_quantity_overflow"
    assert outcome(book, limit("a", "buy", 100, 1))[0] == "open"
    assert outcome(book, limit("a", "buy", 99, 2))[0] == "open"


def test_mat_8_only_what_would_rest_counts_for_the_level_total() -> None:
    huge = LEVEL_TOTAL_LIMIT_LOTS - 1
    book = book_of(limit("a", "buy", 100, 2), limit("b", "sell", 101, huge))
    assert outcome(book, replace(limit("a", "buy", 100, huge), time_in_force="ioc"))[2] == 0
    assert outcome(book, limit("a", "buy", 101, huge)) == ("filled", None, huge)


def test_notional_is_exact_far_beyond_a_double() -> None:
    huge = LEVEL_TOTAL_LIMIT_LOTS - 1
    book = book_of(limit("a", "buy", huge, huge))
    assert accepted(book, market("b", "sell", huge)).order.notional == huge * huge


# Sequences and events


def test_plc_1_a_book_begins_at_zero_and_numbers_orders_by_their_place_command() -> None:
    book = ReferenceBook()
    assert (book.sequence, book.events) == (0, [])
    first = accepted(book, limit("a", "buy", 100, 5)).order.number
    book.cancel(Cancel(first))
    assert (first, accepted(book, limit("a", "buy", 100, 5)).order.number) == (1, 3)


def test_an_event_tells_the_taker_then_the_makers_in_fill_order() -> None:
    book = book_of(
        limit("a", "sell", 101, 2), limit("b", "sell", 100, 2), limit("c", "sell", 100, 3)
    )
    answer = accepted(book, limit("d", "buy", 101, 8))
    event = book.events[-1]
    assert (event.sequence, event.type, event.trades) == (4, "place", answer.trades)
    assert [order.number for order in event.orders] == [4, 2, 3, 1]
    assert [order.status for order in event.orders] == ["partially_filled"] + ["filled"] * 3
    assert {order.sequence for order in event.orders} == {4}
    assert [trade.index for trade in event.trades] == [1, 2, 3]
    assert event.levels == (
        LevelChange("buy", 101, 1),
        LevelChange("sell", 100, 0),
        LevelChange("sell", 101, 0),
    )


def test_states_told_earlier_do_not_change_afterwards() -> None:
    book = ReferenceBook()
    told = accepted(book, limit("a", "buy", 100, 5)).order
    accepted(book, market("b", "sell", 5))
    assert told.status == "open"
    assert book.events[0].orders == (told,)


# Queries


def test_levels_add_up_the_queue() -> None:
    book = book_of(limit("a", "buy", 99, 1), limit("a", "buy", 100, 2), limit("b", "buy", 100, 3))
    assert book.levels("buy") == [(100, 5, 2), (99, 1, 1)]
    assert book.levels("sell") == []


def test_open_orders_are_the_clients_own_oldest_first() -> None:
    book = book_of(limit("a", "buy", 99, 1), limit("b", "buy", 100, 2), limit("a", "buy", 100, 3))
    book.cancel(Cancel(2))
    assert [order.number for order in book.open_orders("a")] == [1, 3]
    assert book.open_orders("b") == []


def test_the_digest_is_the_sha256_of_the_documented_text() -> None:
    asked = replace(limit("ann", "sell", 101, 4), client_order_id="x", expires_us=START_US + 9)
    book = book_of(replace(asked, time_in_force="gtd"), limit("bob", "buy", 99, 2))
    accepted(book, iceberg("cyd", "buy", 100, 7, 3))
    accepted(book, stop("ann", "buy", 105, 6))
    text = (
        "sequence 4\n"
        "rules open - - - -\n"
        "buy 100 7 3 cyd 3 limit gtc - 0 3 3 - none -\n"
        "buy 99 2 2 bob 2 limit gtc - 0 2 - - none -\n"
        f"sell 101 4 1 ann 4 limit gtd - 0 1 - {START_US + 9} none x\n"
        "stop buy 105 - 6 4 ann stop gtc - 0 4 - - none -\n"
    )
    assert book.canonical_text() == text
    assert book.digest() == hashlib.sha256(text.encode()).hexdigest()


def test_the_text_tells_what_is_around_the_orders() -> None:
    book = book_of(limit("ann", "sell", 100, 1), market("bob", "buy", 1))
    for command in (ArmTimer("cyd", 5), KillSwitch("ann", engaged=True), SetRules("halted", 9)):
        book.apply(command)
    assert book.canonical_text() == (
        f"sequence 5\nlast 100\nrules halted 9 - - -\ntimer cyd {START_US + 5}\nkilled ann\n"
    )


def test_the_text_of_a_fresh_book() -> None:
    assert ReferenceBook().canonical_text() == "sequence 0\nrules open - - - -\n"


def test_a_copy_goes_its_own_way() -> None:
    book = tapes.low_limits()
    for command in tapes.commands(5, 300, book=tapes.low_limits()):
        book.apply(command)
    before, copied = book.canonical_text(), book.copy()
    assert copied.canonical_text() == before
    for command in tapes.commands(6, 300, book=tapes.low_limits()):
        copied.apply(command)
    copied.check_invariants()
    assert book.canonical_text() == before
    book.check_invariants()


# Invariants, always


@settings(max_examples=150)
@given(tape=strategies.tapes(), limits=st.tuples(*[st.sampled_from((1, 2, 3, 250))] * 4))
def test_cmd_1_invariants_hold_after_every_command(
    tape: list[Command], limits: tuple[int, int, int, int]
) -> None:
    """Only what is accepted takes a sequence, and what changes nothing takes none."""
    book = ReferenceBook(*limits)
    for command in tape:
        sequence, before = book.sequence, book.canonical_text()
        answer = book.apply(command)
        if isinstance(answer, Refused | Ticked) or getattr(answer, "replayed", False):
            assert (book.sequence, book.canonical_text()) == (sequence, before)
        elif not isinstance(answer, Swept | MassCancelled):
            assert book.sequence > sequence
        book.check_invariants()


@dataclass
class Lots:
    """A resting order, lot by lot: what it shows, what it hides, and who comes before whom."""

    order: Order
    shown: int
    hidden: int
    rank: tuple[int, ...]


def naive_fills(book: ReferenceBook, place: Place) -> list[tuple[int, int, int]]:
    """Price-time priority once more, by looking for the best lot each time."""
    sign = 1 if place.side == "buy" else -1
    makers = [
        Lots(order, order.visible_lots, order.remaining_lots - order.visible_lots, order.place)
        for order in book.resting("sell" if place.side == "buy" else "buy")
        if order.expires_us is None or order.expires_us > book.now_us
    ]
    taken: list[tuple[int, int, tuple[int, ...]]] = []
    for turn in range(place.quantity_lots):
        best = min(makers, key=lambda m: (sign * m.order.limit_ticks, m.rank), default=None)
        if best is None:
            break
        price = best.order.limit_ticks
        if place.price_ticks is not None and sign * price > sign * place.price_ticks:
            break
        taken.append((best.order.number, price, best.rank))
        best.shown -= 1
        if not best.shown and not best.hidden:
            makers.remove(best)
        elif not best.shown:
            best.shown = min(best.order.display_lots or 0, best.hidden)
            best.hidden -= best.shown
            best.rank = (book.sequence + 1, turn)
    grouped = itertools.groupby(taken)
    return [(number, price, len(list(lots))) for (number, price, _), lots in grouped]


def at_once(place: Place) -> Place:
    """The order as one of another client that matches now or never, without a band."""
    price = place.price_ticks or place.stop_price_ticks
    tif = place.time_in_force if place.time_in_force == "fok" else "ioc"
    return Place("new", place.side, "limit", tif, place.quantity_lots, price)


@settings(max_examples=300)
@given(tape=strategies.tapes(), last=strategies.places())
def test_mat_1_fills_are_those_of_matching_lot_by_lot(tape: list[Command], last: Place) -> None:
    book, last = ReferenceBook(), at_once(last)
    for command in tape:
        book.apply(command)
    book.set_rules(SetRules())
    expected = naive_fills(book, last)
    short = sum(lots for *_, lots in expected) < last.quantity_lots
    answer = accepted(book, last)
    assert fills(answer) == ([] if short and last.time_in_force == "fok" else expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_invariants_hold_along_an_adversarial_tape(seed: int) -> None:
    book = tapes.low_limits()
    for position, command in enumerate(tapes.commands(seed, 3000, book=tapes.low_limits())):
        book.apply(command)
        if position % 100 == 0:
            book.check_invariants()
    book.check_invariants()


# This side itself


def test_every_rule_is_named_by_a_test() -> None:
    rules = set(re.findall(r"^- \*\*([A-Z]{3}-\d+)\*\*", RULES.read_text(), re.MULTILINE))
    named = set()
    for path in Path(__file__).parent.glob("test_reference*.py"):
        for subject, number in re.findall(r"def test_([a-z]{3})_(\d+)_", path.read_text()):
            named.add(f"{subject.upper()}-{number}")
    assert len(rules) > 40
    assert named == rules


def test_the_proof_side_never_imports_the_product() -> None:
    root = Path(tests.__file__).parent
    files = [root / f"{name}.py" for name in ("commands", "strategies", "tapes", "truth")]
    packaged = sorted((root / "reference").glob("*.py"))
    assert len(packaged) >= 8
    for path in files + packaged:
        lines = [
            row
            for row in path.read_text().splitlines()
            if row.lstrip().startswith(("import ", "from "))
        ]
        assert not [row for row in lines if "app" in row.split()[1].split(".")]
