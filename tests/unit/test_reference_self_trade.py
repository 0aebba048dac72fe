"""The reference's self-trade prevention: Binance's published cases, and the rules of SLF."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests import truth
from tests.commands import (
    SELF_TRADE_PREVENTIONS,
    Amend,
    Cancel,
    Place,
    SelfTradePrevention,
    Side,
    iceberg,
    limit,
    market,
    stop,
)
from tests.reference import Amended, LevelChange, Order, ReferenceBook
from tests.unit.test_reference import accepted, book_of, fills, outcome, refused_without_a_trace

MODES: dict[str, SelfTradePrevention] = {
    "NONE": "none",
    "EXPIRE_TAKER": "cancel_newest",
    "EXPIRE_MAKER": "cancel_oldest",
    "EXPIRE_BOTH": "cancel_both",
    "DECREMENT": "decrement",
}
PUBLISHED = [
    json.loads(line) for line in (truth.DATA / "binance_stp_amend.jsonl").read_text().splitlines()
]
PREVENTING = [mode for mode in SELF_TRADE_PREVENTIONS if mode != "none"]


def placed_of(step: dict[str, Any]) -> Place:
    """The order that a step of a published case places."""
    side: Side = "buy" if step["side"] == "buy" else "sell"
    place = replace(
        market(step["user"], side, step["qty"]),
        self_trade_prevention=MODES[step.get("stp", "NONE")],
    )
    if step["type"] == "market":
        return place
    tif = truth.TIMES_IN_FORCE[step["tif"]]
    return replace(place, type="limit", time_in_force=tif, price_ticks=step["px"])


def outcome_of(order: Order, asked_lots: int) -> dict[str, object]:
    """Of a published case's `expect`, what the book can say."""
    gone = order.reason == "self_trade_prevented"
    left = order.remaining_lots if gone else asked_lots - order.quantity_lots
    state = "resting" if order.is_open else "filled" if order.status == "filled" else "gone"
    return {"executed": order.filled_lots, "prevented": left, "state": state}


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case["case"][:40])
def test_gives_the_answers_that_binance_published(case: dict[str, Any]) -> None:
    book, numbers = ReferenceBook(), dict[str, int]()
    for step in case["steps"]:
        if step["op"] == "new":
            numbers[step["id"]] = accepted(book, placed_of(step)).order.number
        elif step["op"] == "amend":
            answer = book.amend(Amend(numbers[step["id"]], quantity_lots=step["qty"]))
            assert isinstance(answer, Amended)
        else:
            book.cancel(Cancel(numbers[step["id"]]))
    ids = {number: name for name, number in numbers.items()}
    for name, expected in case.get("expect", {}).items():
        order = book.order(numbers[name])
        assert order is not None
        asked = next(step["qty"] for step in case["steps"] if step["id"] == name)
        told = outcome_of(order, asked)
        assert told == {key: expected[key] for key in told}, name
    if "trades" in case:
        trades = [trade for event in book.events for trade in event.trades]
        assert [
            [ids[t.maker], ids[t.taker], t.price_ticks, t.quantity_lots] for t in trades
        ] == case["trades"]
    book.check_invariants()


def own(mode: SelfTradePrevention, lots: int, price_ticks: int = 101) -> Place:
    """A bid of ann's, who owns some of the asks."""
    return replace(limit("ann", "buy", price_ticks, lots), self_trade_prevention=mode)


def asks() -> ReferenceBook:
    """1: bob 2 at 100; 2: ann 5 at 100; 3: bob 4 at 101."""
    return book_of(
        limit("bob", "sell", 100, 2), limit("ann", "sell", 100, 5), limit("bob", "sell", 101, 4)
    )


def told(book: ReferenceBook) -> list[tuple[int, str, str | None, int]]:
    """(number, status, reason, remaining) of each order of the last event."""
    return [(o.number, o.status, o.reason, o.remaining_lots) for o in book.events[-1].orders]


def test_slf_1_without_prevention_they_trade() -> None:
    assert fills(accepted(asks(), own("none", 8))) == [(1, 100, 2), (2, 100, 5), (3, 101, 1)]


def test_slf_2_cancel_newest_ends_the_taker_alone() -> None:
    book = asks()
    assert fills(accepted(book, own("cancel_newest", 8))) == [(1, 100, 2)]
    assert told(book) == [
        (4, "cancelled", "self_trade_prevented", 6),
        (1, "filled", None, 0),
    ]
    assert book.queue("sell") == [(100, 5, 2), (101, 4, 3)]


def test_slf_3_cancel_oldest_takes_the_maker_out_and_goes_on() -> None:
    book = asks()
    assert fills(accepted(book, own("cancel_oldest", 8))) == [(1, 100, 2), (3, 101, 4)]
    assert told(book) == [
        (4, "partially_filled", None, 2),
        (1, "filled", None, 0),
        (2, "cancelled", "self_trade_prevented", 5),
        (3, "filled", None, 0),
    ]
    assert book.queue("buy") == [(101, 2, 4)]


def test_slf_4_cancel_both_ends_both() -> None:
    book = asks()
    accepted(book, own("cancel_both", 8))
    assert told(book) == [
        (4, "cancelled", "self_trade_prevented", 6),
        (1, "filled", None, 0),
        (2, "cancelled", "self_trade_prevented", 5),
    ]
    assert book.queue("sell") == [(101, 4, 3)]


def test_slf_5_decrement_of_a_larger_taker_cancels_the_maker() -> None:
    book = asks()
    order = accepted(book, own("decrement", 12)).order
    assert (order.quantity_lots, order.filled_lots, order.status) == (7, 6, "partially_filled")
    assert told(book)[2] == (2, "cancelled", "self_trade_prevented", 5)
    assert book.queue("buy") == [(101, 1, 4)]


def test_slf_5_decrement_of_a_larger_maker_reduces_it_at_its_place() -> None:
    book = asks()
    accepted(book, limit("bob", "sell", 100, 1))
    order = accepted(book, own("decrement", 5)).order
    assert (order.quantity_lots, order.remaining_lots) == (5, 3)
    assert order.reason == "self_trade_prevented"
    assert book.queue("sell") == [(100, 2, 2), (100, 1, 4), (101, 4, 3)]
    maker = book.order(2)
    assert maker is not None
    assert (maker.quantity_lots, maker.status, maker.reason) == (2, "open", None)


def test_slf_5_decrement_of_equals_cancels_both() -> None:
    book = asks()
    accepted(book, own("decrement", 7))
    assert told(book)[0] == (4, "cancelled", "self_trade_prevented", 5)
    assert told(book)[2] == (2, "cancelled", "self_trade_prevented", 5)


def test_slf_5_decrement_can_leave_a_taker_that_ends_filled() -> None:
    book = asks()
    accepted(book, own("decrement", 11))
    assert told(book)[0] == (4, "filled", None, 0)


def test_slf_5_decrement_counts_what_an_iceberg_hides() -> None:
    book = book_of(iceberg("ann", "sell", 100, 9, 4))
    accepted(book, own("decrement", 3))
    assert book.levels("sell") == [(100, 4, 1)]
    assert book.events[-1].levels == (), "nothing of what it shows has changed"
    accepted(book, own("decrement", 4))
    assert book.queue("sell") == [(100, 2, 1)]
    assert book.events[-1].levels == (LevelChange("sell", 100, 2),)


def test_slf_6_what_was_traded_before_stands() -> None:
    book = asks()
    order = accepted(book, own("cancel_newest", 8)).order
    assert (order.filled_lots, order.notional) == (2, 200)


@pytest.mark.parametrize("lots", [3, 11])  # less than the own maker has, and more
@pytest.mark.parametrize("mode", ["cancel_newest", "cancel_both", "decrement"])
def test_slf_7_fill_or_kill_fails_at_an_own_maker(mode: SelfTradePrevention, lots: int) -> None:
    book = asks()
    before = book.queue("sell")
    place = replace(own(mode, lots), time_in_force="fok")
    assert outcome(book, place) == ("cancelled", "fok_unfilled", 0)
    assert (book.queue("sell"), len(book.events[-1].orders)) == (before, 1)


@pytest.mark.parametrize("mode", PREVENTING)
def test_slf_7_fill_or_kill_that_needs_no_own_maker_fills(mode: SelfTradePrevention) -> None:
    assert outcome(asks(), replace(own(mode, 2), time_in_force="fok")) == ("filled", None, 2)


def test_slf_7_fill_or_kill_passes_own_makers_and_cancels_them_if_it_fills() -> None:
    book = asks()
    place = replace(own("cancel_oldest", 7), time_in_force="fok")
    assert outcome(book, place) == ("cancelled", "fok_unfilled", 0)
    assert len(book.queue("sell")) == 3
    assert outcome(book, replace(place, quantity_lots=6)) == ("filled", None, 6)
    assert told(book)[2] == (2, "cancelled", "self_trade_prevented", 5)


@pytest.mark.parametrize("mode", SELF_TRADE_PREVENTIONS)
def test_slf_8_post_only_is_refused_before(mode: SelfTradePrevention) -> None:
    book = book_of(limit("ann", "sell", 100, 5))
    place = replace(own(mode, 1), post_only=True)
    assert refused_without_a_trace(book, place) == "post_only_would_cross"


def test_slf_8_a_triggered_stop_prevents_by_its_own_mode() -> None:
    book = book_of(
        limit("bob", "sell", 100, 1),
        limit("ann", "sell", 101, 5),
        replace(stop("ann", "buy", 100, 2), self_trade_prevention="cancel_newest"),
    )
    accepted(book, market("cyd", "buy", 1))
    assert told(book) == [(3, "cancelled", "self_trade_prevented", 2)]
    assert book.queue("sell") == [(101, 5, 2)]


def test_slf_2_a_makers_mode_says_nothing() -> None:
    book = book_of(replace(own("cancel_both", 5), side="sell"))
    assert fills(accepted(book, own("none", 5))) == [(1, 101, 5)]


def test_mat_4_a_prevention_counts_as_a_maker_met() -> None:
    book = book_of(*[limit("ann", "sell", 100, 1)] * 3, limit("bob", "sell", 100, 1), max_fills=3)
    assert outcome(book, own("cancel_oldest", 2)) == ("cancelled", "fill_limit", 0)
    assert book.queue("sell") == [(100, 1, 4)]
