"""The reference's rules of what changes orders that are open: amend (AMD), place in the queue
(PLC), cancel and timers (CXL), expiry (EXP), and icebergs (ICE).
"""

from dataclasses import replace

import pytest

from tests.commands import (
    Amend,
    ArmTimer,
    Cancel,
    KillSwitch,
    MassCancel,
    Place,
    SetRules,
    Side,
    Sweep,
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
    Amended,
    Cancelled,
    Done,
    LevelChange,
    MassCancelled,
    Order,
    Placed,
    ReferenceBook,
    Refused,
    Swept,
)
from tests.unit.test_reference import accepted, book_of, fills, outcome, refused_without_a_trace


def amended(book: ReferenceBook, amend: Amend) -> Amended:
    """The answer to an amend that must not be refused."""
    answer = book.amend(amend)
    assert isinstance(answer, Amended), answer
    return answer


def order_of(book: ReferenceBook, number: int) -> Order:
    order = book.order(number)
    assert order is not None
    return order


def three_bids() -> ReferenceBook:
    """5 lots each at 100, of ann, bob and cyd."""
    return book_of(*(limit(name, "buy", 100, 5) for name in ("ann", "bob", "cyd")))


# Amend


def test_amd_1_what_is_not_given_stays() -> None:
    book = three_bids()
    order = amended(book, Amend(1, price_ticks=99)).order
    assert (order.price_ticks, order.quantity_lots, order.number) == (99, 5, 1)
    order = amended(book, Amend(1, quantity_lots=3)).order
    assert (order.price_ticks, order.quantity_lots, order.sequence) == (99, 3, 5)


def test_amd_1_what_is_not_open_is_refused() -> None:
    book = book_of(limit("ann", "buy", 100, 1), market("bob", "sell", 1))
    assert refused_without_a_trace(book, Amend(1, 99)) == "order_not_open"
    assert refused_without_a_trace(book, Amend(9, 99)) == "order_not_found"


def test_amd_1_what_is_past_its_expiry_is_not_open_yet_can_be_cancelled() -> None:
    book = book_of(dated(limit("ann", "buy", 100, 1), 10))
    book.tick(Tick(10))
    assert refused_without_a_trace(book, Amend(1, 99)) == "order_not_open"
    assert isinstance(book.cancel(Cancel(1)), Cancelled)


def test_amd_1_terms_that_the_order_has_not_are_not_amendable() -> None:
    book = book_of(limit("ann", "buy", 100, 5), stop("ann", "buy", 105, 5))
    assert refused_without_a_trace(book, Amend(1, stop_price_ticks=104)) == "not_amendable"
    assert refused_without_a_trace(book, Amend(2, price_ticks=104)) == "not_amendable"
    book = book_of(
        limit("ann", "sell", 100, 1), stop_limit("bob", "buy", 100, 99, 5), market("cyd", "buy", 1)
    )
    assert order_of(book, 2).rests
    assert refused_without_a_trace(book, Amend(2, stop_price_ticks=104)) == "not_amendable"


def test_amd_2_below_what_is_filled_is_refused() -> None:
    book = three_bids()
    accepted(book, market("dan", "sell", 3))
    assert refused_without_a_trace(book, Amend(1, quantity_lots=2)) == "amend_below_filled"


def test_amd_2_exactly_what_is_filled_ends_the_order_at_its_price() -> None:
    book = three_bids()
    accepted(book, market("dan", "sell", 3))
    book.set_rules(SetRules(price_band_bps=0))
    order = amended(book, Amend(1, price_ticks=150, quantity_lots=3)).order
    assert (order.status, order.reason, order.quantity_lots) == ("filled", None, 3)
    assert order.price_ticks == 100
    assert book.events[-1].levels == (LevelChange("buy", 100, 10),)


def test_amd_3_a_smaller_quantity_keeps_the_place_and_a_larger_one_does_not() -> None:
    book = three_bids()
    amended(book, Amend(1, quantity_lots=4))
    assert [number for *_, number in book.queue("buy")] == [1, 2, 3]
    amended(book, Amend(1, quantity_lots=5))
    assert [number for *_, number in book.queue("buy")] == [2, 3, 1]
    assert order_of(book, 1).place == (5, 0)


def test_amd_3_the_same_terms_again_are_accepted_and_change_no_level() -> None:
    book = three_bids()
    amended(book, Amend(1, 100, 5))
    assert [number for *_, number in book.queue("buy")] == [1, 2, 3]
    assert (book.sequence, book.events[-1].levels) == (4, ())


def test_amd_3_an_iceberg_shows_no_more_than_it_did() -> None:
    book = book_of(iceberg("ann", "buy", 100, 20, 8), market("bob", "sell", 3))
    assert order_of(book, 1).shown_lots == 5
    amended(book, Amend(1, quantity_lots=10))
    assert order_of(book, 1).shown_lots == 5
    assert book.events[-1].levels == ()
    amended(book, Amend(1, quantity_lots=7))
    assert order_of(book, 1).shown_lots == 4
    assert book.events[-1].levels == (LevelChange("buy", 100, 4),)


def test_amd_4_another_price_may_trade_at_once_under_the_same_number() -> None:
    book = book_of(limit("ann", "buy", 99, 5), limit("bob", "sell", 100, 3))
    answer = amended(book, Amend(1, price_ticks=101))
    assert fills(answer) == [(2, 100, 3)]
    assert (answer.order.status, answer.order.filled_lots) == ("partially_filled", 3)
    trade = answer.trades[0]
    assert (trade.taker, trade.sequence) == (1, 3)
    assert book.queue("buy") == [(101, 2, 1)]
    assert [order.number for order in book.events[-1].orders] == [1, 2]
    assert book.events[-1].levels == (
        LevelChange("buy", 99, 0),
        LevelChange("buy", 101, 2),
        LevelChange("sell", 100, 0),
    )


def test_amd_4_only_what_remains_comes_in_again() -> None:
    book = book_of(limit("ann", "buy", 100, 5), market("bob", "sell", 2))
    accepted(book, limit("bob", "sell", 101, 9))
    assert fills(amended(book, Amend(1, 101, 7))) == [(3, 101, 5)]
    assert order_of(book, 1).notional == 2 * 100 + 5 * 101


def test_amd_4_an_iceberg_that_loses_its_place_touches_its_level() -> None:
    book = book_of(iceberg("ann", "buy", 100, 20, 8))
    amended(book, Amend(1, quantity_lots=30))
    assert book.events[-1].levels == (LevelChange("buy", 100, 8),)


@pytest.mark.parametrize(
    ("amend", "code"),
    [(Amend(1, 100), "post_only_would_cross"), (Amend(2, 98), "level_quantity_overflow")],
)
def test_amd_4_where_a_rule_refuses_nothing_changes(amend: Amend, code: str) -> None:
    book = book_of(
        replace(limit("ann", "buy", 99, 5), post_only=True),
        limit("bob", "buy", 97, 2),
        limit("cyd", "buy", 98, LEVEL_TOTAL_LIMIT_LOTS - 2),
        limit("dan", "sell", 100, 1),
    )
    assert refused_without_a_trace(book, amend) == code


def test_amd_4_its_own_shown_quantity_does_not_count_against_it() -> None:
    book = book_of(limit("ann", "buy", 98, LEVEL_TOTAL_LIMIT_LOTS - 2))
    amended(book, Amend(1, quantity_lots=LEVEL_TOTAL_LIMIT_LOTS - 1))
    over = Amend(1, quantity_lots=LEVEL_TOTAL_LIMIT_LOTS)
    assert refused_without_a_trace(book, over) == "level_quantity_overflow"


def test_amd_4_the_orders_own_self_trade_prevention_holds() -> None:
    book = book_of(
        limit("ann", "sell", 100, 5),
        replace(limit("ann", "buy", 99, 2), self_trade_prevention="cancel_newest"),
    )
    order = amended(book, Amend(2, 100)).order
    assert (order.status, order.reason) == ("cancelled", "self_trade_prevented")
    assert book.queue("buy") == []


def test_amd_5_a_pending_stop_does_not_match_and_may_keep_its_place() -> None:
    stops = (stop_limit(name, "buy", 105, 104, 5) for name in ("ann", "bob"))
    book = book_of(limit("cyd", "sell", 104, 1), *stops)
    assert fills(amended(book, Amend(2, 110, 4, 105))) == []
    assert [one.number for one in book.pending("buy")] == [2, 3]
    amended(book, Amend(2, quantity_lots=5))
    assert [one.number for one in book.pending("buy")] == [3, 2]
    amended(book, Amend(2, stop_price_ticks=104))
    assert [one.number for one in book.pending("buy")] == [2, 3]
    assert order_of(book, 2).place == (6, 0)


@pytest.mark.parametrize(
    "limits", [SetRules(max_order_lots=4), SetRules(max_order_notional=400)], ids=["lots", "money"]
)
def test_amd_6_limits_hold_for_what_the_order_would_become(limits: SetRules) -> None:
    book = three_bids()
    book.set_rules(limits)
    assert refused_without_a_trace(book, Amend(1, 99)) == "risk_limit"
    assert amended(book, Amend(1, 100, 5)), "changes nothing"
    assert amended(book, Amend(1, 100, 4)), "within the limits"


def test_amd_6_the_band_is_asked_where_the_price_changes() -> None:
    book = book_of(limit("ann", "buy", 90, 5), limit("bob", "sell", 100, 1), market("c", "buy", 1))
    book.set_rules(SetRules(price_band_bps=500))
    assert refused_without_a_trace(book, Amend(1, 94)) == "price_band"
    assert amended(book, Amend(1, quantity_lots=9)).order.price_ticks == 90
    assert amended(book, Amend(1, 95)).order.price_ticks == 95


def test_amd_6_no_band_for_a_pending_stop_but_stp_3() -> None:
    book = book_of(limit("bob", "sell", 100, 1), market("c", "buy", 1))
    accepted(book, stop_limit("ann", "buy", 101, 101, 5))
    book.set_rules(SetRules(price_band_bps=0))
    assert amended(book, Amend(3, price_ticks=200))
    assert refused_without_a_trace(book, Amend(3, stop_price_ticks=100)) == "stop_would_trigger"


def test_amd_6_the_number_of_open_orders_is_not_asked() -> None:
    book = three_bids()
    book.set_rules(SetRules(max_open_orders=1))
    assert amended(book, Amend(1, 101, 9))


def test_cmd_3_an_amend_is_refused_in_the_documented_order() -> None:
    book = book_of(replace(limit("ann", "buy", 100, 5), post_only=True), market("bob", "sell", 2))
    accepted(book, limit("bob", "sell", 105, 1))
    amend = Amend(1, 110, 1, 7)
    book.set_rules(SetRules("halted", 100, 4, 500))
    book.set_kill_switch(KillSwitch("ann", engaged=True))
    seen = [refused_without_a_trace(book, amend)]
    for change in (
        SetRules("cancel_only", 100, 4, 500),
        SetRules("open", 100, 4, 500),
        KillSwitch("ann", engaged=False),
    ):
        book.apply(change)
        seen.append(refused_without_a_trace(book, amend))
    others = (Amend(1, 110, 1), Amend(1, 110, 9))
    seen += [refused_without_a_trace(book, other) for other in others]
    for limits in (SetRules(price_band_bps=100), SetRules()):
        book.set_rules(limits)
        seen.append(refused_without_a_trace(book, Amend(1, 110, 9)))
    assert seen == [
        *("instrument_halted", "cancel_only", "kill_switch", "not_amendable"),
        *("amend_below_filled", "risk_limit", "price_band", "post_only_would_cross"),
    ]


# Place in the queue


def test_plc_2_an_amended_order_has_the_place_of_its_amend() -> None:
    book = three_bids()
    amended(book, Amend(1, 99))
    amended(book, Amend(1, 100))
    assert book.queue("buy") == [(100, 5, 2), (100, 5, 3), (100, 5, 1)]
    assert order_of(book, 1).place == (5, 0)


def test_plc_2_icebergs_refilled_by_one_command_follow_in_order_of_their_last_refills() -> None:
    book = book_of(iceberg("ann", "sell", 100, 9, 1), iceberg("bob", "sell", 100, 9, 2))
    answer = accepted(book, market("cyd", "buy", 4))
    assert fills(answer) == [(1, 100, 1), (2, 100, 2), (1, 100, 1)]
    assert [number for *_, number in book.queue("sell")] == [2, 1]
    assert [order_of(book, number).place for number in (2, 1)] == [(3, 2), (3, 3)]
    accepted(book, limit("dan", "sell", 100, 1))
    assert [number for *_, number in book.queue("sell")] == [2, 1, 4]
    answer = accepted(book, market("cyd", "buy", 3))
    assert fills(answer) == [(2, 100, 2), (1, 100, 1)]
    assert [number for *_, number in book.queue("sell")] == [4, 2, 1]


# Cancel and timers


def test_cxl_1_a_pending_stop_can_be_cancelled() -> None:
    book = book_of(stop("ann", "buy", 105, 5))
    answer = book.cancel(Cancel(1))
    assert isinstance(answer, Cancelled)
    assert (answer.order.status, book.pending("buy")) == ("cancelled", [])
    assert book.events[-1].levels == ()


def test_cxl_2_only_a_halt_refuses_a_cancel() -> None:
    book = three_bids()
    book.set_kill_switch(KillSwitch("ann", engaged=True))
    book.set_rules(SetRules("cancel_only", 0, 1, 1, 1))
    assert isinstance(book.cancel(Cancel(1)), Cancelled)
    book.set_rules(SetRules("halted"))
    assert refused_without_a_trace(book, Cancel(2)) == "instrument_halted"
    assert refused_without_a_trace(book, MassCancel("bob")) == "instrument_halted"
    assert refused_without_a_trace(book, Cancel(1)) == "order_not_open"


def mixed() -> ReferenceBook:
    """Orders 1 to 5: ann's bid, ask, buy stop and bid, and bob's bid between."""
    book = ReferenceBook(max_cancels=2)
    for place in (
        limit("ann", "buy", 100, 1),
        limit("ann", "sell", 110, 1),
        limit("bob", "buy", 100, 1),
        stop("ann", "buy", 120, 1),
        limit("ann", "buy", 99, 1),
    ):
        accepted(book, place)
    return book


def numbers(answer: MassCancelled | Refused) -> list[int]:
    assert isinstance(answer, MassCancelled)
    return [order.number for order in answer.orders]


@pytest.mark.parametrize(
    ("side", "expected"),
    [(None, [[1, 2], [4, 5], []]), ("buy", [[1], [4, 5], []]), ("sell", [[2], [], []])],
)
def test_cxl_3_a_mass_cancel_looks_at_the_oldest_and_goes_on_after_the_last_of_them(
    side: Side | None, expected: list[list[int]]
) -> None:
    """Two orders are looked at by each, whatever their side."""
    book = mixed()
    steps = [MassCancel("ann", side, after) for after in (0, 2, 5)]
    assert [numbers(book.mass_cancel(step)) for step in steps] == expected
    kinds = [event.type for event in book.events[5:]]
    assert kinds == ["mass_cancel"] * sum(map(bool, expected)), "no event where there is no order"
    assert {order.reason for event in book.events[5:] for order in event.orders} == {
        "cancelled_by_client"
    }


def test_cxl_3_a_mass_cancel_is_one_event_with_all_its_levels() -> None:
    book = mixed()
    book.mass_cancel(MassCancel("ann"))
    event = book.events[-1]
    assert [order.number for order in event.orders] == [1, 2]
    assert event.levels == (LevelChange("buy", 100, 1), LevelChange("sell", 110, 0))


def test_cxl_4_a_timer_is_armed_armed_anew_and_disarmed_by_commands() -> None:
    book = ReferenceBook()
    assert book.arm_timer(ArmTimer("ann", 50)) == Done(1)
    book.tick(Tick(10))
    book.arm_timer(ArmTimer("ann", 70))
    assert book.timers == {"ann": START_US + 80}
    book.set_rules(SetRules("halted"))
    book.arm_timer(ArmTimer("ann", 0))
    assert book.timers == {}
    told = [event.detail for event in book.events if event.type == "cancel_after"]
    assert told == [f"ann|{START_US + 50}", f"ann|{START_US + 80}", "ann|"]


def test_cxl_4_the_sweep_cancels_all_in_steps_and_then_the_timer_is_gone() -> None:
    book = mixed()
    book.arm_timer(ArmTimer("ann", 5))
    assert book.sweep() == Swept(more=False)
    book.tick(Tick(5))
    assert book.sweep() == Swept(more=True)
    assert book.events[-1].detail == f"ann|{START_US + 5}"
    assert book.sweep() == Swept(more=False)
    event = book.events[-1]
    assert (event.type, event.detail, book.timers) == ("cancel_after", "ann|", {})
    assert [(order.number, order.reason) for order in event.orders] == [
        (4, "cancel_after"),
        (5, "cancel_after"),
    ]
    assert [order.number for order in book.open_orders("bob")] == [3]


def test_cxl_4_a_timer_that_finds_no_order_is_gone_by_an_event() -> None:
    book = ReferenceBook()
    book.arm_timer(ArmTimer("ann", 5))
    book.tick(Tick(6))
    assert book.sweep() == Swept(more=False)
    assert (book.events[-1].detail, book.events[-1].orders) == ("ann|", ())
    assert (book.sequence, book.timers) == (2, {})


def test_cxl_4_a_timer_that_is_due_is_neither_armed_anew_nor_disarmed() -> None:
    """Or a late heartbeat would keep orders alive that are to be cancelled."""
    book = book_of(limit("ann", "buy", 1, 1))
    book.arm_timer(ArmTimer("ann", 5))
    book.tick(Tick(5))
    assert book.arm_timer(ArmTimer("ann", 60)) == Refused("timer_due")
    assert book.arm_timer(ArmTimer("ann", 0)) == Refused("timer_due")
    book.sweep()
    assert not book.open_orders("ann")
    assert isinstance(book.arm_timer(ArmTimer("ann", 60)), Done)


def test_cxl_4_the_most_overdue_timer_goes_first() -> None:
    book = book_of(limit("ann", "buy", 1, 1), limit("bob", "buy", 1, 1), limit("cyd", "buy", 1, 1))
    for client, timeout_us in (("cyd", 7), ("bob", 5), ("ann", 7)):
        book.arm_timer(ArmTimer(client, timeout_us))
    book.tick(Tick(7))
    assert [book.sweep().more for _ in range(3)] == [True, True, False]
    assert [event.detail for event in book.events[-3:]] == ["bob|", "ann|", "cyd|"]


# Expiry


def dated(place: Place, expires_in_us: int) -> Place:
    """The same order, good till then."""
    return replace(place, time_in_force="gtd", expires_us=START_US + expires_in_us)


@pytest.mark.parametrize(("after_us", "expires"), [(9, False), (10, True), (11, True)])
def test_exp_1_an_order_expires_at_its_expiry(after_us: int, *, expires: bool) -> None:
    book = book_of(dated(limit("ann", "buy", 100, 5), 10))
    book.tick(Tick(after_us))
    book.sweep()
    order = order_of(book, 1)
    ended = ("expired", "expired") if expires else ("open", None)
    assert (order.status, order.reason) == ended
    assert len(book.events) == 1 + expires


def test_exp_1_one_that_comes_in_past_it_is_refused() -> None:
    book = ReferenceBook()
    place = dated(limit("ann", "buy", 100, 5), 0)
    assert refused_without_a_trace(book, place) == "expires_in_past"
    assert isinstance(book.place(dated(place, 1)), Placed)


def test_exp_2_a_taker_expires_the_makers_that_it_meets_and_goes_on() -> None:
    book = book_of(dated(limit("ann", "sell", 100, 5), 10), limit("bob", "sell", 100, 5))
    book.tick(Tick(10))
    answer = accepted(book, limit("cyd", "buy", 100, 2))
    assert fills(answer) == [(2, 100, 2)]
    event = book.events[-1]
    assert [(o.number, o.status) for o in event.orders] == [
        (3, "filled"),
        (1, "expired"),
        (2, "partially_filled"),
    ]
    assert event.levels == (LevelChange("sell", 100, 3),)


def test_exp_2_a_fill_or_kill_that_fails_expires_nobody() -> None:
    book = book_of(dated(limit("ann", "sell", 100, 5), 10), limit("bob", "sell", 100, 1))
    book.tick(Tick(10))
    fok = replace(limit("cyd", "buy", 100, 2), time_in_force="fok")
    assert outcome(book, fok) == ("cancelled", "fok_unfilled", 0)
    assert order_of(book, 1).is_open
    assert outcome(book, replace(fok, quantity_lots=1)) == ("filled", None, 1)
    assert order_of(book, 1).status == "expired"


def test_exp_2_an_expiry_comes_before_self_trade_prevention() -> None:
    book = book_of(dated(limit("ann", "sell", 100, 5), 10))
    book.tick(Tick(10))
    place = replace(limit("ann", "buy", 100, 2), self_trade_prevention="cancel_both")
    assert outcome(book, place) == ("open", None, 0)
    assert order_of(book, 1).status == "expired"


def test_mat_7_a_post_only_order_expires_whom_it_meets_and_rests() -> None:
    book = book_of(dated(limit("ann", "sell", 100, 5), 10))
    book.tick(Tick(10))
    place = replace(limit("bob", "buy", 100, 1), post_only=True)
    assert outcome(book, place) == ("open", None, 0)
    assert [o.number for o in book.events[-1].orders] == [2, 1]


def test_mat_7_a_post_only_order_that_meets_an_open_maker_later_is_refused() -> None:
    book = book_of(dated(limit("ann", "sell", 99, 5), 10), limit("ann", "sell", 100, 1))
    book.tick(Tick(10))
    place = replace(limit("bob", "buy", 100, 1), post_only=True)
    assert refused_without_a_trace(book, place) == "post_only_would_cross"


def test_mat_4_an_expiry_counts_as_a_maker_met() -> None:
    book = book_of(*[dated(limit("ann", "sell", 100, 5), 10)] * 2, max_fills=2)
    accepted(book, limit("bob", "sell", 100, 1))
    book.tick(Tick(10))
    post_only = replace(limit("cyd", "buy", 100, 1), post_only=True)
    assert outcome(book, post_only) == ("cancelled", "fill_limit", 0)
    assert book.queue("sell") == [(100, 1, 3)]


def test_exp_3_the_sweep_expires_by_expiry_then_number_in_steps() -> None:
    book = ReferenceBook(max_expiries=2)
    for place in (
        dated(limit("ann", "buy", 100, 5), 20),
        dated(limit("ann", "buy", 99, 5), 10),
        dated(stop("ann", "buy", 120, 5), 10),
        dated(limit("ann", "buy", 98, 5), 21),
    ):
        accepted(book, place)
    book.tick(Tick(20))
    assert [book.sweep().more for _ in range(2)] == [True, False]
    events = book.events[4:]
    assert [event.type for event in events] == ["expire", "expire"]
    assert [[o.number for o in event.orders] for event in events] == [[2, 3], [1]]
    assert book.apply(Sweep()) == Swept(more=False)
    assert len(book.events) == 6


# Icebergs


def test_ice_1_only_what_is_shown_is_in_the_depth() -> None:
    book = book_of(iceberg("ann", "buy", 100, 20, 8), limit("bob", "buy", 100, 1))
    assert book.levels("buy") == [(100, 9, 2)]
    assert book.queue("buy") == [(100, 20, 1), (100, 1, 2)]
    assert book.events[0].levels == (LevelChange("buy", 100, 8),)


def test_ice_1_the_last_part_shows_what_remains() -> None:
    book = book_of(iceberg("ann", "buy", 100, 10, 8))
    accepted(book, market("bob", "sell", 8))
    assert order_of(book, 1).shown_lots == 2
    accepted(book, market("bob", "sell", 2))
    assert (order_of(book, 1).status, order_of(book, 1).shown_lots) == ("filled", 0)


def test_ice_2_as_a_taker_it_trades_with_all_of_it() -> None:
    book = book_of(limit("ann", "sell", 100, 6))
    order = accepted(book, iceberg("bob", "buy", 100, 9, 2)).order
    assert (order.filled_lots, order.shown_lots, order.status) == (6, 2, "partially_filled")


def test_ice_2_a_refill_stands_behind_the_others_and_each_part_is_a_trade() -> None:
    book = book_of(iceberg("ann", "sell", 100, 6, 2), limit("bob", "sell", 100, 3))
    answer = accepted(book, limit("cyd", "buy", 100, 8))
    assert fills(answer) == [(1, 100, 2), (2, 100, 3), (1, 100, 2), (1, 100, 1)]
    event = book.events[-1]
    assert [(o.number, o.status) for o in event.orders] == [
        (3, "filled"),
        (1, "partially_filled"),
        (2, "filled"),
    ]
    assert order_of(book, 1).shown_lots == 1
    assert event.levels == (LevelChange("sell", 100, 1),)


def test_ice_2_a_level_whose_total_is_as_before_is_told() -> None:
    book = book_of(iceberg("ann", "sell", 100, 6, 2))
    accepted(book, limit("cyd", "buy", 100, 2))
    assert book.events[-1].levels == (LevelChange("sell", 100, 2),)


def test_ice_2_a_partly_taken_part_keeps_its_place() -> None:
    book = book_of(iceberg("ann", "sell", 100, 6, 2), limit("bob", "sell", 100, 3))
    accepted(book, limit("cyd", "buy", 100, 1))
    assert [number for *_, number in book.queue("sell")] == [1, 2]
    assert order_of(book, 1).place == (1, 0)


def test_ice_2_a_refill_takes_no_more_than_the_level_has_room_for() -> None:
    book = book_of(iceberg("ann", "sell", 100, 50, 5), market("bob", "buy", 3))
    accepted(book, limit("cyd", "sell", 100, LEVEL_TOTAL_LIMIT_LOTS - 1 - 2))
    accepted(book, market("bob", "buy", 2))
    order = order_of(book, 1)
    assert (order.remaining_lots, order.shown_lots) == (45, 2)
    assert book.levels("sell") == [(100, LEVEL_TOTAL_LIMIT_LOTS - 1, 2)]
    book.check_invariants()


def test_ice_3_hidden_quantity_counts_for_fill_or_kill() -> None:
    book = book_of(iceberg("ann", "sell", 100, 6, 2))
    fok = replace(limit("bob", "buy", 100, 6), time_in_force="fok")
    assert outcome(book, replace(fok, quantity_lots=7))[1] == "fok_unfilled"
    assert outcome(book, fok) == ("filled", None, 6)


def test_mat_4_each_part_of_an_iceberg_counts_as_a_maker_met() -> None:
    book = book_of(iceberg("ann", "sell", 100, 6, 2), max_fills=2)
    assert outcome(book, limit("bob", "buy", 100, 6)) == ("cancelled", "fill_limit", 4)
