"""What no event may tell, one story at a time: an event that is right but for one thing is refused,
by the rule that it breaks, and leaves the book as it was.
"""

from typing import Final

import pytest

from app.domain.book_state import BookState, Inconsistent
from app.domain.orders import RECORD_FIELDS
from app.domain.rules import Rules

Fields = dict[str, str]

START_US: Final = 1_700_000_000_000_000
USUAL: Final = {
    "status": "open",
    "quantity_lots": "5",
    "filled_lots": "0",
    "notional": "0",
    "price_ticks": "100",
    "client_id": "alice",
    "side": "buy",
    "type": "limit",
    "time_in_force": "gtc",
}
LIMIT: Final = 2**53


def order(number: int, /, at: int = 0, **fields: object) -> str:
    """A line of an event; `at` the event that changes it, where that is not the one that places it.
    A buy of 5 at 100 of alice unless told otherwise.
    """
    changed = {"sequence": at, "updated_us": START_US + at} if at else {}
    told = {**USUAL, "created_us": START_US + number, **changed, **fields}
    return f"{number:014d}|" + "|".join(str(told.get(name, "")) for name in RECORD_FIELDS)


def filled(lots: int = 5, price: int = 100, quantity: int = 5) -> Fields:
    """An order's fields after fills at one price."""
    status = "filled" if lots == quantity else "partially_filled"
    numbers = {"quantity_lots": quantity, "filled_lots": lots, "notional": lots * price}
    return {"status": status} | {name: str(number) for name, number in numbers.items()}


def event(  # one parameter for each field of an event
    kind: str, *orders: str, fills: str = "", levels: str = "", detail: str = "", later_us: int = 0
) -> Fields:
    """An event, at the time of its turn unless later."""
    told = {"type": kind, "orders": "\n".join(orders), "fills": fills, "levels": levels}
    return told | ({"detail": detail} if detail else {}) | {"later": str(later_us)}


def book(*events: Fields) -> BookState:
    """The book after these."""
    state = BookState.empty("BTC-USD", Rules())
    for fields in events:
        go_on(state, fields)
    return state


def go_on(state: BookState, fields: Fields) -> None:
    """The next event."""
    sequence = state.sequence + 1
    time_us = START_US + sequence + int(fields["later"])
    state.apply(sequence, {**fields, "time": str(time_us)})


def refused(state: BookState, fields: Fields, why: str) -> None:
    """It cannot follow, for this reason, and nothing of it is kept."""
    before = list(state.lines())
    with pytest.raises(Inconsistent, match=why):
        go_on(state, fields)
    assert list(state.lines()) == before


RESTS = event("place", order(1), levels="bid:100=5")
SELLER = {"client_id": "bob", "side": "sell"}
TAKES = event(
    "place",
    order(2, **SELLER | filled()),
    order(1, 2, **filled()),
    fills="00000000000001,100,5",
    levels="bid:100=0",
)


def test_what_is_right_is_taken() -> None:
    state = book(RESTS, TAKES)
    assert (state.orders, state.levels, state.last_ticks) == ({}, {}, 100)


def taking(
    *makers: str, fills: str, levels: str = "bid:100=0", kind: str = "place", **taker: object
) -> Fields:
    """As TAKES, with other terms."""
    first = order(2, **SELLER | filled() | taker)  # type: ignore[arg-type]
    return event(kind, first, *makers, fills=fills, levels=levels)


MAKER = order(1, 2, **filled())
FILL = "00000000000001,100,5"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        pytest.param(
            taking(
                order(1, 2, **filled(price=101)),
                fills="00000000000001,101,5",
                notional="505",
            ),
            "order 1: at 101, it rests at 100",
            id="MAT-2, not at the maker's price",
        ),
        pytest.param(
            taking(MAKER, fills=FILL, price_ticks="101"), "limit is 101", id="MAT-3, beyond its own"
        ),
        pytest.param(
            taking(MAKER, fills=FILL, post_only="1"), "post-only", id="MAT-7, a post-only takes"
        ),
        pytest.param(
            taking(MAKER, fills=FILL, client_id="alice", self_trade_prevention="cancel_newest"),
            "own client",
            id="SLF, with itself",
        ),
        pytest.param(
            taking(
                MAKER,
                fills=FILL,
                **filled(5, quantity=9) | {"status": "cancelled", "reason": "fok_unfilled"},
                time_in_force="fok",
            ),
            "filled in part",
            id="MAT-6, half of all or none",
        ),
        pytest.param(taking(MAKER, fills=FILL, side="buy"), "other side", id="both buy"),
        pytest.param(
            taking(MAKER, fills="00000000000009,100,5"), "order 1: filled 5", id="fills of another"
        ),
        pytest.param(
            taking(MAKER, fills="00000000000001,100,4"), "order 2: filled 5", id="fewer fills"
        ),
        pytest.param(
            taking(MAKER, fills=FILL + " 00000000000001,100,0"), "no quantity", id="an empty fill"
        ),
        pytest.param(
            taking(
                order(1, 2, status="cancelled", reason="self_trade_prevented"),
                fills="",
                filled_lots="0",
                notional="0",
                status="cancelled",
                reason="ioc_remainder",
            ),
            "a taker cancels it",
            id="SLF-6, a stranger is cancelled",
        ),
        pytest.param(taking(MAKER, fills=FILL, levels="bid:100=1"), "levels", id="another total"),
        pytest.param(taking(MAKER, fills=FILL, levels=""), "levels", id="a level untold"),
        pytest.param(
            taking(MAKER, fills=FILL, levels="bid:100=0 ask:7=1"), "levels", id="a level of nobody"
        ),
        pytest.param(taking(MAKER, MAKER, fills=FILL), "an order twice", id="an order twice"),
        pytest.param(
            taking(MAKER, fills=FILL, kind="cancel"), "cancel event with 2", id="a cancel of two"
        ),
        pytest.param(
            event("place", order(3), levels="bid:100=10"), "number or time", id="a number ahead"
        ),
        pytest.param(event("place", order(2)), "levels", id="it rests and no level grows"),
        pytest.param(
            event("cancel", order(2, 2, status="cancelled", reason="x")), "order 2", id="of nobody"
        ),
        pytest.param(event("cancel", order(1, 2, **filled())), "order 1", id="a cancel that fills"),
        pytest.param(
            event("expire", order(1, 2, status="cancelled", reason="x"), levels="bid:100=0"),
            "expire event leaves it cancelled",
            id="an expiry that cancels",
        ),
        pytest.param(
            event("cancel", order(1, 2), levels=""), "leaves it open", id="a cancel that does not"
        ),
        pytest.param(
            event("cancel", order(1, 2, quantity_lots=4, status="cancelled", reason="x")),
            "quantity changes by -1",
            id="a cancel that makes smaller",
        ),
        pytest.param(
            event("cancel", order(1, 2, price_ticks=99, status="cancelled", reason="x"), levels=""),
            "price changes",
            id="a cancel at another price",
        ),
        pytest.param(
            event("cancel", order(1, 2, client_id="eve", status="cancelled", reason="x")),
            "never does",
            id="of another client's",
        ),
        pytest.param(
            event("amend", order(1, 2, quantity_lots=9), levels="bid:100=9"),
            "place in the queue",
            id="AMD-4, larger and in its place",
        ),
        pytest.param(
            event("amend", order(1, 2, priority=f"{7:014d}"), levels=""),
            "place in the queue",
            id="PLC-2, at a place of its own",
        ),
        pytest.param(
            event("amend", order(1, 2, quantity_lots=0, status="filled"), levels="bid:100=0"),
            "status filled",
            id="nothing at all",
        ),
        pytest.param(event("trigger", order(1, 2)), "leaves it open", id="STP-2, what is no stop"),
        pytest.param(event("place"), "place event with 0", id="a place of nothing"),
        pytest.param(event("rules", order(1, 2), detail="status=open"), "1 orders", id="rules"),
        pytest.param(event("rules", detail="status=open fees=1"), "rules", id="unknown rules"),
        pytest.param(event("kill_switch", detail="bob|2"), "kill switch", id="a switch half on"),
        pytest.param(event("dance"), "unreadable", id="unknown"),
        pytest.param(event("cancel_after", detail="bob|1"), "for the past", id="a timer of old"),
        pytest.param(
            event(
                "cancel_after",
                order(1, 2, status="cancelled", reason="cancel_after"),
                levels="bid:100=0",
                detail="alice|",
            ),
            "was not due",
            id="CXL-4, a timer that nobody armed",
        ),
        pytest.param(
            event("place", order(2, status="filled", filled_lots=5), fills=""),
            "notional",
            id="free",
        ),
        pytest.param(
            event("place", order(2, quantity_lots=LIMIT - 5), levels=f"bid:100={LIMIT}"),
            "beyond their bounds",
            id="MAT-8, a level too full",
        ),
        pytest.param(
            event("place", order(2, time_in_force="ioc"), levels="bid:100=10"),
            "rests and may not",
            id="MAT-5, an ioc rests",
        ),
        pytest.param(
            event("place", order(2, display_lots=2), levels="bid:100=10"),
            "shows None",
            id="ICE-1, an iceberg that shows all",
        ),
        pytest.param(
            event("place", order(2, display_lots=2, displayed_lots=3), levels="bid:100=8"),
            "shows 3 of 5",
            id="ICE-1, an iceberg that shows more",
        ),
        pytest.param(
            event("expire", order(1, 2, status="expired", reason="expired"), levels="bid:100=0"),
            "status expired",
            id="EXP-1, without expiry",
        ),
        pytest.param(
            event("cancel", order(1, 2, status="cancelled"), levels="bid:100=0"),
            "with reason ''",
            id="for no reason",
        ),
        pytest.param(
            event("place", order(2, reason="x"), levels="bid:100=10"),
            "with reason 'x'",
            id="open for a reason",
        ),
        pytest.param(
            event("place", order(2, stop_price_ticks=7), levels="bid:100=10"),
            "limit order with stop price 7",
            id="STP-1, a limit order that is a stop",
        ),
        pytest.param(
            event(
                "place",
                order(2, display_lots=2, displayed_lots=1, status="cancelled", reason="x"),
            ),
            "does not rest",
            id="ICE-1, shown when it is over",
        ),
        pytest.param(
            event("cancel", order(1, 2, status="cancelled", reason="x"), fills=FILL),
            "cancel event with fills",
            id="a cancel that trades",
        ),
        pytest.param(
            event("cancel", order(1, 3, status="cancelled", reason="x"), levels="bid:100=0"),
            "says its record",
            id="changed by another event",
        ),
    ],
)
def test_what_breaks_a_rule_is_refused(fields: Fields, why: str) -> None:
    """After one order that rests."""
    state = book(RESTS)
    refused(state, fields, why)
    go_on(state, TAKES)


def test_fills_are_best_price_first() -> None:
    state = book(RESTS, event("place", order(2, price_ticks=99), levels="bid:99=5"))
    taker = SELLER | {"price_ticks": "99", "status": "filled", "filled_lots": "10"}
    fills = ["00000000000001,100,5", "00000000000002,99,5"]

    def sold(fills: list[str]) -> Fields:
        return event(
            "place",
            order(3, **taker | {"quantity_lots": "10", "notional": "995"}),
            order(1, 3, **filled()),
            order(2, 3, price_ticks=99, **filled(price=99)),
            fills=" ".join(fills),
            levels="bid:100=0 bid:99=0",
        )

    refused(state, sold(fills[::-1]), "best price first")
    go_on(state, sold(fills))


def test_a_maker_past_its_expiry_never_trades() -> None:
    """EXP-2; and it expires no earlier."""
    expires = {"time_in_force": "gtd", "expires_us": START_US + 2}
    state = book(event("place", order(1, **expires), levels="bid:100=5"))
    maker = order(1, 2, **expires | filled())
    refused(state, taking(maker, fills=FILL), "past its expiry")
    late = {"time_in_force": "gtd", "expires_us": START_US + 3}
    state = book(event("place", order(1, **late), levels="bid:100=5"))
    expired = {"status": "expired", "reason": "expired"}
    refused(state, event("expire", order(1, 2, **late | expired), levels="bid:100=0"), "too early")
    go_on(state, taking(order(1, 2, **late | filled()), fills=FILL))


@pytest.mark.parametrize("status", ["halted", "cancel_only"])
def test_a_closed_instrument_takes_no_order(status: str) -> None:
    """STA-2, STA-3."""
    fees = "maker_fee_bps=0 taker_fee_bps=0"
    state = book(RESTS, event("rules", detail=f"status={status} {fees}"))
    refused(state, event("place", order(3), levels="bid:100=10"), f"instrument is {status}")
    cancel = event("cancel", order(1, 3, status="cancelled", reason="x"), levels="bid:100=0")
    if status == "halted":
        refused(state, cancel, "while the instrument is halted")
    else:
        go_on(state, cancel)


def test_a_client_whose_kill_switch_is_on_places_nothing() -> None:
    """RSK-4."""
    state = book(RESTS, event("kill_switch", detail="alice|1"))
    refused(state, event("place", order(3), levels="bid:100=10"), "kill switch is on")
    go_on(state, event("kill_switch", detail="alice|"))
    go_on(state, event("place", order(4), levels="bid:100=10"))


def test_a_client_has_a_client_order_id_once() -> None:
    """CMD-5."""
    state = book(event("place", order(1, client_order_id="a"), levels="bid:100=5"))
    again = event("place", order(2, client_order_id="a"), levels="bid:100=10")
    refused(state, again, "another open order 'a'")
    go_on(state, event("place", order(2, client_order_id="b"), levels="bid:100=10"))


STOP = {"type": "stop", "price_ticks": "", "stop_price_ticks": 90, "side": "sell"}


def test_a_stop_is_triggered_by_trades_alone_and_in_its_turn() -> None:
    """STP-2, STP-4, STP-7; `b` has the higher stop price."""
    a, b = STOP | {"status": "pending"}, STOP | {"status": "pending", "stop_price_ticks": 95}
    over = {"status": "cancelled", "reason": "no_liquidity"}
    state = book(event("place", order(1, **a)), event("place", order(2, **b)))
    refused(state, event("trigger", order(2, 3, **b | over)), "triggered next")
    go_on(state, event("place", order(3, price_ticks=80), levels="bid:80=5"))
    sold = order(4, **SELLER | filled(price=80) | {"price_ticks": 80})
    go_on(
        state,
        event(
            "place",
            sold,
            order(3, 4, price_ticks=80, **filled(price=80)),
            fills="00000000000003,80,5",
            levels="bid:80=0",
        ),
    )
    assert [line.split()[0] for line in state.lines()][-2:] == ["waiting_sell_stop"] * 2
    refused(state, event("place", order(5, **a | {"stop_price_ticks": 1})), "others wait")
    refused(state, event("trigger", order(1, 5, **a | over)), "triggered next")
    go_on(state, event("trigger", order(2, 5, **b | over)))
    go_on(state, event("trigger", order(1, 6, **a | over)))
    refused(state, event("place", order(7, **a)), "has been reached")  # STP-3
    refused(state, event("place", order(7, **a | {"status": "open"})), "order 7")


def test_a_timer_takes_all_of_its_client_when_it_is_due() -> None:
    """CXL-4."""
    due_us = START_US + 4
    armed = event("cancel_after", detail=f"alice|{due_us}")
    state = book(RESTS, event("place", order(2), levels="bid:100=10"), armed)
    ends = {"status": "cancelled", "reason": "cancel_after"}

    def fires(*numbers: int, left: int, detail: str, **fields: object) -> Fields:
        orders = (order(number, 4, **ends | fields) for number in numbers)
        return event("cancel_after", *orders, levels=f"bid:100={left}", detail=detail)

    refused(state, fires(1, left=5, detail="alice|"), "left as ''")
    refused(state, fires(1, 2, left=0, detail=f"alice|{due_us}"), "left as")
    refused(state, fires(1, 2, left=0, detail="bob|"), "'bob' was not due")
    go_on(state, fires(1, 2, left=0, detail="alice|"))
    assert state.timers == {}


def test_what_ends_a_clients_orders_ends_no_others() -> None:
    """CXL-3, CXL-4."""
    due_us = START_US + 3
    bobs = event("place", order(2, client_id="bob"), levels="bid:100=10")
    state = book(RESTS, bobs, event("cancel_after", detail=f"alice|{due_us}"))
    ends = {"status": "cancelled", "reason": "x"}
    both = order(1, 4, **ends), order(2, 4, client_id="bob", **ends)
    refused(state, event("mass_cancel", *both, levels="bid:100=0"), "several clients")
    fired = event("cancel_after", *both, levels="bid:100=0", detail="alice|")
    refused(state, fired, "orders of others")
    go_on(state, event("mass_cancel", both[0], levels="bid:100=5"))


def test_decrement_takes_from_both_what_the_smaller_had() -> None:
    """SLF-5; the taker of 3 is cancelled by a maker of 5, which has 2 left."""
    state = book(RESTS)
    taker = {"side": "sell", "self_trade_prevention": "decrement", "quantity_lots": 3}
    ends = {"status": "cancelled", "reason": "self_trade_prevented"}

    def met(left: int, **more: object) -> Fields:
        maker = order(1, 2, quantity_lots=left)
        return event("place", order(2, **taker | ends | more), maker, levels=f"bid:100={left}")

    refused(state, met(3), "quantity changes by -2")
    refused(state, met(2, self_trade_prevention="cancel_both"), "quantity changes by -3")
    refused(state, met(2, client_id="bob"), "quantity changes by -3")
    go_on(state, met(2))


def test_time_never_goes_back() -> None:
    state = book(RESTS)
    refused(state, TAKES | {"later": "-2"}, "its time is before")
