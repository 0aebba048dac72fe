"""Proves the proof side: the reference matcher against the answers that others gave and against
its rules one by one, and the generators against what they promise.
"""

import hashlib
import itertools
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tests
from tests import strategies, tapes, truth
from tests.commands import Cancel, Command, Place, Side, TimeInForce, limit, market
from tests.reference import (
    LEVEL_TOTAL_LIMIT_LOTS,
    Cancelled,
    LevelChange,
    Order,
    Placed,
    ReferenceBook,
    Refused,
)

SEEDS = (1, 2, 3)
FILL_LIMIT = 6  # low, so that tapes meet it


def accepted(book: ReferenceBook, place: Place) -> Placed:
    """Places an order that must not be refused."""
    answer = book.place(place)
    assert isinstance(answer, Placed), answer
    return answer


def fills(answer: Placed) -> list[tuple[int, int, int]]:
    """(maker, price, quantity) of each trade of the answer."""
    return [(trade.maker, trade.price_ticks, trade.quantity_lots) for trade in answer.trades]


def outcome(book: ReferenceBook, place: Place) -> tuple[str, str | None, int]:
    """Status, reason and filled lots of an accepted order."""
    order = accepted(book, place).order
    return order.status, order.reason, order.filled_lots


def book_of(*places: Place, max_fills: int = 1000) -> ReferenceBook:
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

    def queue(self, side: Side) -> list[tuple[int, int, int]]:
        return self.book.queue(side)


class ReplacingVenue(ReferenceVenue):
    """One that has a replace of its own."""

    def replace(self, number: int, place: Place) -> truth.Taken | None:
        return self.place(place) if self.cancel(number) else None


CASES = [case for path in truth.case_files() for case in truth.load_cases(path)]
SUPPORTED = [case for case in CASES if truth.needs_supported(case)]


@pytest.mark.parametrize("case", SUPPORTED, ids=lambda case: case.name[:60])
@pytest.mark.parametrize("venue", [ReferenceVenue, ReplacingVenue])
def test_gives_the_published_answer(venue: type[ReferenceVenue], case: truth.Case) -> None:
    truth.check_case(venue(), case)


@pytest.mark.parametrize("path", truth.flash1_files(), ids=lambda path: path.name)
@pytest.mark.parametrize("venue", [ReferenceVenue, ReplacingVenue])
def test_gives_the_fills_of_flash1(venue: type[ReferenceVenue], path: Path) -> None:
    played = venue()
    rows = truth.load_flash1(path)
    truth.check_flash1(played, rows)
    assert sum(len(row.fills) for row in rows) == sum(len(e.trades) for e in played.book.events)
    played.book.check_invariants()


def test_truth_files_are_all_there() -> None:
    assert len(CASES) >= 35
    assert len(SUPPORTED) >= 28
    assert all(len(truth.load_flash1(path)) == 20_000 for path in truth.flash1_files())


def test_only_self_trade_prevention_and_amend_are_skipped() -> None:
    for case in CASES:
        odd = any(need.startswith("stp:") or need == "amend" for need in case.needs)
        assert truth.needs_supported(case) != odd


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
def test_better_price_trades_first_whenever_it_came(side: Side, best: int, worse: int) -> None:
    resting: Side = "sell" if side == "buy" else "buy"
    book = book_of(limit("a", resting, worse, 5), limit("b", resting, best, 5))
    assert fills(accepted(book, market("c", side, 10))) == [(2, best, 5), (1, worse, 5)]


def test_first_come_first_served_at_one_price() -> None:
    book = book_of(*(limit("a", "sell", 100, 5) for _ in range(3)))
    assert fills(accepted(book, limit("b", "buy", 100, 12))) == [
        (1, 100, 5),
        (2, 100, 5),
        (3, 100, 2),
    ]
    assert book.queue("sell") == [(100, 3, 3)]


def test_a_partial_fill_keeps_its_place() -> None:
    book = book_of(limit("a", "buy", 100, 5), limit("b", "buy", 100, 5))
    accepted(book, market("c", "sell", 2))
    assert book.queue("buy") == [(100, 3, 1), (100, 5, 2)]


def test_trades_at_the_makers_price() -> None:
    book = book_of(limit("a", "sell", 100, 5))
    answer = accepted(book, limit("b", "buy", 110, 5))
    assert fills(answer) == [(1, 100, 5)]
    assert answer.order.notional == 500


@pytest.mark.parametrize(("side", "price"), [("buy", 99), ("sell", 101)])
def test_does_not_trade_through_its_limit(side: Side, price: int) -> None:
    book = book_of(limit("a", "sell" if side == "buy" else "buy", 100, 5))
    answer = accepted(book, limit("b", side, price, 5))
    assert (answer.order.status, answer.trades) == ("open", ())


def test_prices_are_ordered_as_numbers() -> None:
    book = book_of(limit("a", "sell", 1000, 1), limit("a", "sell", 99, 1), limit("a", "buy", 9, 1))
    accepted(book, limit("a", "buy", 10, 1))
    assert [price for price, *_ in book.queue("sell")] == [99, 1000]
    assert [price for price, *_ in book.queue("buy")] == [10, 9]


def test_an_owners_orders_trade_with_each_other() -> None:
    book = book_of(limit("a", "sell", 100, 5))
    assert fills(accepted(book, limit("a", "buy", 100, 5))) == [(1, 100, 5)]


# What becomes of a remainder


def with_asks(*lots: int, max_fills: int = 1000) -> ReferenceBook:
    """Asks of these sizes at 100, 101, …"""
    asks = (limit("a", "sell", 100 + n, size) for n, size in enumerate(lots))
    return book_of(*asks, max_fills=max_fills)


def bid(quantity_lots: int, tif: TimeInForce = "gtc", price_ticks: int = 101) -> Place:
    """A bid that reaches the first two of with_asks."""
    place = limit("b", "buy", price_ticks, quantity_lots)
    return replace(place, time_in_force=tif)


def test_a_gtc_remainder_rests_at_its_limit() -> None:
    book = with_asks(5, 5, 5)
    assert outcome(book, bid(12)) == ("partially_filled", None, 10)
    assert book.queue("buy") == [(101, 2, 4)]
    assert book.queue("sell") == [(102, 5, 3)]


def test_an_exact_fill_leaves_nothing() -> None:
    book = with_asks(5, 5)
    assert outcome(book, bid(10)) == ("filled", None, 10)
    assert book.queue("buy") == book.queue("sell") == []


@pytest.mark.parametrize(("quantity", "filled"), [(12, 10), (6, 6)])
def test_an_ioc_remainder_is_cancelled(quantity: int, filled: int) -> None:
    ended = ("filled", None) if quantity == filled else ("cancelled", "ioc_remainder")
    assert outcome(with_asks(5, 5, 5), bid(quantity, "ioc")) == (*ended, filled)


def test_an_ioc_that_meets_nothing_is_accepted_and_cancelled() -> None:
    book = ReferenceBook()
    assert outcome(book, bid(1, "ioc")) == ("cancelled", "ioc_remainder", 0)
    assert book.sequence == 1


def test_a_market_remainder_is_cancelled_for_want_of_liquidity() -> None:
    book = with_asks(5, 5)
    assert outcome(book, market("b", "buy", 11)) == ("cancelled", "no_liquidity", 10)
    assert outcome(book, market("b", "buy", 1)) == ("cancelled", "no_liquidity", 0)


def test_fok_fills_whole_across_levels() -> None:
    assert outcome(with_asks(5, 5), bid(10, "fok")) == ("filled", None, 10)


def test_fok_short_by_one_trades_nothing_yet_takes_a_sequence() -> None:
    book = with_asks(5, 5, 5)
    assert outcome(book, bid(11, "fok")) == ("cancelled", "fok_unfilled", 0)
    assert book.sequence == 4
    assert [total for _, total, _ in book.levels("sell")] == [5, 5, 5]
    assert (book.events[-1].trades, book.events[-1].levels) == ((), ())


def test_market_fok_short_of_liquidity_is_fok_unfilled() -> None:
    place = replace(market("b", "buy", 11), time_in_force="fok")
    assert outcome(with_asks(5, 5), place) == ("cancelled", "fok_unfilled", 0)


# The fill limit


@pytest.mark.parametrize("tif", ["gtc", "ioc"])
def test_the_fill_limit_cancels_what_would_still_trade(tif: TimeInForce) -> None:
    book = with_asks(1, 1, 1, max_fills=2)
    assert outcome(book, bid(9, tif, 105)) == ("cancelled", "fill_limit", 2)
    assert book.queue("buy") == []
    assert book.queue("sell") == [(102, 1, 3)]


def test_the_fill_limit_ends_a_market_order() -> None:
    book = with_asks(1, 1, 1, max_fills=2)
    assert outcome(book, market("b", "buy", 3)) == ("cancelled", "fill_limit", 2)


def test_a_fok_that_needs_more_fills_than_the_limit_trades_nothing() -> None:
    book = with_asks(1, 1, 1, max_fills=2)
    assert outcome(book, bid(3, "fok", 105)) == ("cancelled", "fill_limit", 0)


def test_a_fok_whose_makers_run_out_at_the_limit_is_fok_unfilled() -> None:
    book = with_asks(1, 1, max_fills=2)
    assert outcome(book, bid(3, "fok", 105)) == ("cancelled", "fok_unfilled", 0)


def test_a_fok_that_needs_exactly_the_limit_fills() -> None:
    book = with_asks(1, 1, 1, max_fills=2)
    assert outcome(book, bid(2, "fok", 105)) == ("filled", None, 2)


@pytest.mark.parametrize(
    ("tif", "ended"),
    [("gtc", ("partially_filled", None)), ("ioc", ("cancelled", "ioc_remainder"))],
)
def test_reaching_the_limit_with_no_maker_left_is_no_fill_limit(
    tif: TimeInForce, ended: tuple[str, str | None]
) -> None:
    book = with_asks(1, 1, 1, max_fills=2)
    assert outcome(book, bid(3, tif, 101)) == (*ended, 2)


# post_only


@pytest.mark.parametrize("price", [100, 101])
def test_post_only_that_would_cross_is_refused(price: int) -> None:
    place = replace(bid(1, price_ticks=price), post_only=True)
    assert refused_without_a_trace(with_asks(5), place) == "post_only_would_cross"


def test_post_only_one_tick_away_rests() -> None:
    book = with_asks(5)
    assert outcome(book, replace(bid(1, price_ticks=99), post_only=True)) == ("open", None, 0)


# Cancel


def test_cancel_takes_a_sequence_and_the_order_off_the_book() -> None:
    book = book_of(limit("a", "buy", 100, 5))
    answer = book.cancel(Cancel(1))
    assert isinstance(answer, Cancelled)
    assert (answer.order.status, answer.order.reason) == ("cancelled", "cancelled_by_client")
    assert (answer.order.sequence, book.sequence, book.queue("buy")) == (2, 2, [])
    assert book.events[-1].levels == (LevelChange("buy", 100, 0),)


def test_cancel_keeps_what_was_filled() -> None:
    book = book_of(limit("a", "buy", 100, 5), market("b", "sell", 2))
    book.cancel(Cancel(1))
    order = book.order(1)
    assert order is not None
    assert (order.filled_lots, order.remaining_lots, order.notional) == (2, 3, 200)


def test_cancel_of_an_order_that_is_over_is_refused() -> None:
    book = book_of(limit("a", "buy", 100, 5), market("b", "sell", 5), market("b", "buy", 1))
    codes = {refused_without_a_trace(book, Cancel(number)) for number in (1, 2, 3)}
    assert codes == {"order_not_open"}


def test_cancel_twice_is_refused() -> None:
    book = book_of(limit("a", "buy", 100, 5))
    book.cancel(Cancel(1))
    assert refused_without_a_trace(book, Cancel(1)) == "order_not_open"


@pytest.mark.parametrize("number", [0, 2, 99])
def test_cancel_of_a_number_that_is_no_order_is_refused(number: int) -> None:
    book = book_of(limit("a", "buy", 100, 5))
    book.cancel(Cancel(1))  # takes sequence 2, which is a cancel and no order
    assert refused_without_a_trace(book, Cancel(number)) == "order_not_found"


# client_order_id


def named(client: str, name: str, price_ticks: int = 100) -> Place:
    """A resting bid with a client_order_id."""
    return replace(limit(client, "buy", price_ticks, 5), client_order_id=name)


def test_client_order_id_of_an_open_order_is_refused() -> None:
    book = book_of(named("a", "x"))
    assert refused_without_a_trace(book, named("a", "x", 90)) == "duplicate_client_order_id"


def test_client_order_id_of_a_partially_filled_order_is_refused() -> None:
    book = book_of(named("a", "x"), market("b", "sell", 1))
    assert refused_without_a_trace(book, named("a", "x")) == "duplicate_client_order_id"


def test_client_order_id_is_the_clients_own() -> None:
    book = book_of(named("a", "x"), named("b", "x"), named("a", "y"))
    assert book.sequence == 3


def test_client_order_id_is_free_after_cancel_and_fill() -> None:
    book = book_of(named("a", "x"))
    book.cancel(Cancel(1))
    accepted(book, named("a", "x"))
    accepted(book, market("b", "sell", 5))
    accepted(book, named("a", "x"))


def test_client_order_id_of_an_order_that_never_rested_is_free() -> None:
    ioc = replace(named("a", "x"), time_in_force="ioc")
    assert book_of(ioc, ioc).sequence == 2


# Idempotency


def keyed(place: Place, key: str = "k") -> Place:
    """The same order with an idempotency key."""
    return replace(place, idempotency_key=key)


def test_the_same_key_and_payload_get_the_first_answer_again() -> None:
    book = with_asks(5)
    first = accepted(book, keyed(bid(7)))
    book.cancel(Cancel(2))
    before = book.digest()
    assert accepted(book, keyed(bid(7))) == replace(first, replayed=True)
    assert (book.digest(), book.sequence) == (before, 3)


def test_the_same_key_with_another_payload_is_refused() -> None:
    book = book_of(keyed(bid(7)))
    assert refused_without_a_trace(book, keyed(bid(8))) == "idempotency_key_reused"


@pytest.mark.parametrize(
    "change", [{"client_order_id": "z"}, {"post_only": True}, {"price_ticks": 1}, {"side": "sell"}]
)
def test_every_field_is_part_of_the_payload(change: dict[str, object]) -> None:
    book = book_of(keyed(bid(7)))
    other = replace(keyed(bid(7)), **change)  # type: ignore[arg-type]
    assert refused_without_a_trace(book, other) == "idempotency_key_reused"


def test_a_key_is_the_clients_own() -> None:
    book = book_of(keyed(limit("a", "buy", 100, 5)), keyed(limit("b", "buy", 100, 6)))
    assert book.sequence == 2


def test_a_refused_order_leaves_its_key_free() -> None:
    book = with_asks(5)
    refused = replace(keyed(bid(1, price_ticks=100)), post_only=True)
    assert refused_without_a_trace(book, refused) == "post_only_would_cross"
    assert not accepted(book, keyed(bid(2))).replayed


def test_idempotency_comes_before_every_other_check() -> None:
    place = keyed(named("a", "x"))
    book = book_of(place)  # again, it would be a duplicate client_order_id
    assert accepted(book, place).replayed
    other = replace(place, quantity_lots=1)
    assert refused_without_a_trace(book, other) == "idempotency_key_reused"


def test_a_cancelled_fok_is_an_answer_to_replay() -> None:
    book = book_of(keyed(bid(7, "fok")))
    accepted(book, limit("a", "sell", 100, 7))
    assert accepted(book, keyed(bid(7, "fok"))).order.reason == "fok_unfilled"


# Level totals


def test_a_level_total_stays_below_its_limit() -> None:
    book = book_of(limit("a", "buy", 100, LEVEL_TOTAL_LIMIT_LOTS - 2))
    assert refused_without_a_trace(book, limit("a", "buy", 100, 2)) == "level_quantity_overflow"
    assert outcome(book, limit("a", "buy", 100, 1))[0] == "open"
    assert outcome(book, limit("a", "buy", 99, 2))[0] == "open"


def test_only_what_would_rest_counts_for_the_level_total() -> None:
    huge = LEVEL_TOTAL_LIMIT_LOTS - 1
    book = book_of(limit("a", "buy", 100, 2), limit("b", "sell", 101, huge))
    assert outcome(book, replace(limit("a", "buy", 100, huge), time_in_force="ioc"))[2] == 0
    assert outcome(book, limit("a", "buy", 101, huge)) == ("filled", None, huge)


def test_notional_is_exact_far_beyond_a_double() -> None:
    huge = LEVEL_TOTAL_LIMIT_LOTS - 1
    book = book_of(limit("a", "buy", huge, huge))
    assert accepted(book, market("b", "sell", huge)).order.notional == huge * huge


# Sequences and events


def test_a_book_begins_at_zero_and_numbers_orders_by_their_place_command() -> None:
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
    book = book_of(limit("ann", "sell", 101, 4), limit("bob", "buy", 99, 2))
    accepted(book, limit("cyd", "buy", 100, 7))
    text = "sequence 3\nbuy 100 7 3 cyd\nbuy 99 2 2 bob\nsell 101 4 1 ann\n"
    assert book.digest() == hashlib.sha256(text.encode()).hexdigest()


def test_the_digest_of_a_fresh_book() -> None:
    assert ReferenceBook().canonical_text() == "sequence 0\n"


# Invariants, always


@settings(max_examples=150, deadline=None)
@given(tape=strategies.tapes(), max_fills=st.sampled_from((1, 2, 3, 1000)))
def test_invariants_hold_after_every_command(tape: list[Command], max_fills: int) -> None:
    book = ReferenceBook(max_fills)
    for command in tape:
        sequence = book.sequence
        answer = book.apply(command)
        changed = not isinstance(answer, Refused) and not getattr(answer, "replayed", False)
        assert book.sequence == sequence + changed
        book.check_invariants()


def naive_fills(resting: list[Order], place: Place) -> list[tuple[int, int, int]]:
    """Price-time priority once more, lot by lot, by looking for the best order each time."""
    left = {order.number: order.remaining_lots for order in resting if order.side != place.side}
    orders = {order.number: order for order in resting}
    sign = 1 if place.side == "buy" else -1
    taken: list[tuple[int, int]] = []
    for _ in range(place.quantity_lots):
        best = min(left, key=lambda n: (sign * orders[n].limit_ticks, n), default=None)
        if best is None:
            break
        price = orders[best].limit_ticks
        if place.price_ticks is not None and sign * price > sign * place.price_ticks:
            break
        taken.append((best, price))
        left[best] -= 1
        if not left[best]:
            del left[best]
    grouped = itertools.groupby(taken)
    return [(number, price, len(list(lots))) for (number, price), lots in grouped]


@settings(max_examples=150, deadline=None)
@given(tape=strategies.tapes(max_size=25), last=strategies.places())
def test_fills_are_those_of_matching_lot_by_lot(tape: list[Command], last: Place) -> None:
    book = ReferenceBook()
    for command in tape:
        book.apply(command)
    resting = [order for client in strategies.CLIENTS for order in book.open_orders(client)]
    answer = book.place(replace(last, client="new", idempotency_key=None))
    if isinstance(answer, Placed):
        expected = naive_fills(resting, last)
        short = sum(lots for *_, lots in expected) < last.quantity_lots
        assert fills(answer) == ([] if short and last.time_in_force == "fok" else expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_invariants_hold_along_an_adversarial_tape(seed: int) -> None:
    book = ReferenceBook(FILL_LIMIT)
    tape = tapes.commands(seed, 3000, max_fills_per_command=FILL_LIMIT)
    for position, command in enumerate(tape):
        book.apply(command)
        if position % 100 == 0:
            book.check_invariants()
    book.check_invariants()


# The generators


def played(seed: int, count: int) -> tuple[list[Command], ReferenceBook]:
    """An adversarial tape and the book that it leads to."""
    tape = list(tapes.commands(seed, count, max_fills_per_command=FILL_LIMIT))
    book = ReferenceBook(FILL_LIMIT)
    for command in tape:
        book.apply(command)
    return tape, book


def test_the_same_seed_gives_the_same_tape_and_book() -> None:
    (tape, book), (again, other) = played(7, 2000), played(7, 2000)
    assert tape == again
    assert book.digest() == other.digest()
    assert book.events == other.events
    assert played(8, 2000)[0] != tape


def test_a_longer_tape_begins_with_the_shorter() -> None:
    assert played(7, 500)[0] == played(7, 1000)[0][:500]


# Every end that a command can come to; a rule that joins the reference joins this list, and
# the generator must then reach it.
ENDS = {
    ("limit", "gtc", "open", None),
    ("limit", "gtc", "partially_filled", None),
    ("limit", "gtc", "filled", None),
    ("limit", "gtc", "cancelled", "fill_limit"),
    ("limit", "ioc", "filled", None),
    ("limit", "ioc", "cancelled", "ioc_remainder"),
    ("limit", "ioc", "cancelled", "fill_limit"),
    ("limit", "fok", "filled", None),
    ("limit", "fok", "cancelled", "fok_unfilled"),
    ("limit", "fok", "cancelled", "fill_limit"),
    ("market", "ioc", "filled", None),
    ("market", "ioc", "cancelled", "no_liquidity"),
    ("market", "ioc", "cancelled", "fill_limit"),
    ("market", "fok", "filled", None),
    ("market", "fok", "cancelled", "fok_unfilled"),
    ("market", "fok", "cancelled", "fill_limit"),
    "cancelled",
    "replayed",
    "post_only",
    "idempotency_key_reused",
    "duplicate_client_order_id",
    "post_only_would_cross",
    "level_quantity_overflow",
    "order_not_found",
    "order_not_open",
}


def end_of(book: ReferenceBook, command: Command) -> object:
    """The end that the command comes to, in the terms of ENDS."""
    answer = book.apply(command)
    if isinstance(answer, Refused):
        return answer.code
    if isinstance(answer, Cancelled):
        return "cancelled"
    order = answer.order
    if answer.replayed:
        return "replayed"
    if order.post_only:
        return "post_only"
    return order.type, order.time_in_force, order.status, order.reason


def test_the_adversarial_tape_reaches_every_end() -> None:
    seen: Counter[object] = Counter()
    for seed in SEEDS:
        book = ReferenceBook(FILL_LIMIT)
        tape = tapes.commands(seed, 10_000, max_fills_per_command=FILL_LIMIT)
        seen.update(end_of(book, command) for command in tape)
    assert seen.keys() == ENDS


def test_the_realistic_flow_has_the_orders_that_were_asked_for() -> None:
    flow = list(tapes.realistic_orders(seed=3, count=5000))
    limits = [place for place in flow if place.type == "limit"]
    assert len(limits) == 5000
    assert 20 < len(flow) - len(limits) < 250
    prices = [place.price_ticks for place in limits if place.price_ticks is not None]
    assert 5_700_000 <= min(prices) <= max(prices) <= 6_300_000
    assert list(tapes.realistic_orders(seed=3, count=5000)) == flow


def test_the_realistic_flow_can_do_without_bursts() -> None:
    flow = tapes.realistic_orders(seed=3, count=2000, market_share=0)
    assert {place.type for place in flow} == {"limit"}


def test_the_realistic_flow_is_densest_near_the_touch() -> None:
    book = ReferenceBook()
    behind = []  # ticks from the best price of its own side, of each order that comes to rest
    for place in tapes.realistic_orders(seed=4, count=5000):
        best = book.queue(place.side)[:1]
        if accepted(book, place).order.is_open and place.price_ticks is not None and best:
            behind.append(abs(place.price_ticks - best[0][0]))
    book.check_invariants()
    dollars = Counter(ticks // 100 for ticks in behind)
    assert dollars[0] > 2 * dollars[5] > 2 * dollars[20] > 0
    assert max(behind) > 10_000


@pytest.mark.parametrize(
    ("units", "decimals", "text"),
    [(123, 2, "1.23"), (5, 2, "0.05"), (1, 8, "0.00000001"), (10**15 + 1, 2, "10000000000000.01")],
)
def test_decimals_are_written_exactly(units: int, decimals: int, text: str) -> None:
    assert tapes.decimal_text(units, decimals) == text


def test_the_command_line_writes_rest_bodies() -> None:
    root = Path(tests.__file__).parents[1]
    line = [sys.executable, "-m", "tests.tapes", "--seed", "5", "--count", "20"]
    run = subprocess.run(line, cwd=root, capture_output=True, text=True, check=True)
    bodies = [json.loads(row) for row in run.stdout.splitlines()]
    flow = tapes.realistic_orders(seed=5, count=20)
    assert bodies == [tapes.rest_body(place) for place in flow]
    assert run.stderr == "seed 5\n"


def test_the_proof_side_never_imports_the_product() -> None:
    root = Path(tests.__file__).parent
    for name in ("commands", "reference", "strategies", "tapes", "truth"):
        code = (root / f"{name}.py").read_text()
        lines = [row for row in code.splitlines() if row.lstrip().startswith(("import", "from"))]
        assert not [row for row in lines if "app" in row.split()[1].split(".")]
