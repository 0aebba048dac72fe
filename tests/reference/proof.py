"""Holds a book against itself: its queues, indexes and stops against its orders, here; and what its
events tell against what the rules allow, in `history`.
"""

from itertools import pairwise

from tests.commands import SIDES
from tests.reference.history import History
from tests.reference.matching import LEVEL_TOTAL_LIMIT_LOTS
from tests.reference.orders import Order
from tests.reference.queues import BookSide
from tests.reference.state import BookState

REASONS = {
    "cancelled_by_client",
    "cancel_after",
    "fill_limit",
    "fok_unfilled",
    "ioc_remainder",
    "level_quantity_overflow",
    "no_liquidity",
    "price_band",
    "self_trade_prevented",
}


def check(book: BookState) -> None:
    """Raises AssertionError unless the whole history and the present state agree."""
    for order in book.orders.values():
        _check_order(order)
        assert max(order.number, order.place[0]) <= order.sequence <= book.sequence
    _check_sides(book)
    _check_stops(book)
    _check_indexes(book)
    _check_history(book)


def _check_order(order: Order) -> None:
    assert 0 <= order.filled_lots <= order.quantity_lots
    assert order.quantity_lots > 0
    assert (order.status == "filled") == (order.remaining_lots == 0)
    assert (order.status == "cancelled") == (order.reason in REASONS)
    assert (order.status == "expired") == (order.reason == "expired")
    assert order.status not in ("open", "pending") or order.filled_lots == 0
    assert order.status != "partially_filled" or order.filled_lots > 0
    assert order.status != "pending" or order.stop_price_ticks is not None
    assert (order.time_in_force == "gtd") == (order.expires_us is not None)
    if order.rests:
        assert order.type in ("limit", "stop_limit")
        assert order.time_in_force in ("gtc", "gtd")
    _check_shown(order)


def _check_shown(order: Order) -> None:
    if order.display_lots is None:
        assert order.shown_lots is None
        return
    assert order.shown_lots is not None
    if order.rests:
        assert 0 < order.shown_lots <= min(order.display_lots, order.remaining_lots)
    else:
        assert order.shown_lots == 0


def _check_sides(book: BookState) -> None:
    for side in SIDES:
        _check_side(book, book.sides[side])
    bids, asks = book.sides["buy"].levels, book.sides["sell"].levels
    if bids and asks:
        assert max(bids) < min(asks), "crossed"


def _check_side(book: BookState, side: BookSide) -> None:
    assert side.prices == sorted(side.levels)
    assert side.totals.keys() == side.levels.keys()
    for price, level in side.levels.items():
        orders = list(level.values())
        assert orders, f"empty level {side.side} {price}"
        assert all(before.place < after.place for before, after in pairwise(orders))
        assert 0 < side.totals[price] < LEVEL_TOTAL_LIMIT_LOTS
        assert side.totals[price] == sum(order.visible_lots for order in orders)
        for number, order in level.items():
            assert order is book.orders[number]
            assert (order.side, order.price_ticks) == (side.side, price)
    queued = [order.number for order in side.orders()]
    rest = [o.number for o in book.orders.values() if o.rests and o.side == side.side]
    assert sorted(queued) == sorted(rest)


def _check_stops(book: BookState) -> None:
    for side in SIDES:
        sign = 1 if side == "buy" else -1
        pending = book.pending(side)
        keys = [(sign * stop.trigger_ticks, stop.place) for stop in pending]
        assert all(before < after for before, after in pairwise(keys))
        assert all(stop is book.orders[stop.number] for stop in pending)
        assert {stop.number for stop in pending} == {
            o.number for o in book.orders.values() if o.status == "pending" and o.side == side
        }
    assert (book.reached() is None) == (book.waiting() is None)


def _check_indexes(book: BookState) -> None:
    still_open = [order for order in book.orders.values() if order.is_open]
    by_client: dict[str, list[int]] = {}
    for order in still_open:
        by_client.setdefault(order.client, []).append(order.number)
    assert {c: list(numbers) for c, numbers in book.open_numbers.items()} == by_client
    named = [order for order in still_open if order.client_order_id is not None]
    ids = {(order.client, order.client_order_id): order.number for order in named}
    assert len(ids) == len(named), "two open orders of one client_order_id"
    assert book.open_client_order_ids == ids
    expiries = [(o.expires_us, o.number) for o in still_open if o.expires_us is not None]
    assert book.expiries == sorted(expiries)


def _check_history(book: BookState) -> None:
    assert book.sequence == len(book.events) == len(book.past)
    history = History(book.max_fills)
    for event, (now_us, command) in zip(book.events, book.past, strict=True):
        history.add(event, now_us, command)
    assert history.orders == book.orders
    assert history.rules == book.rules
    assert history.last_price_ticks == book.last_price_ticks
    assert history.timers == book.timers
    assert history.killed == book.killed
    for side in SIDES:
        told = {price: lots for (s, price), lots in history.totals.items() if s == side and lots}
        assert told == book.sides[side].totals
    # The stops that wait are those that the lowest and highest price reach.
    waiting = book.reached()
    reached = set()
    if waiting is not None:
        reached = {stop.number for stop in book.pending("buy") if stop.trigger_ticks <= waiting[1]}
        reached |= {
            stop.number for stop in book.pending("sell") if stop.trigger_ticks >= waiting[0]
        }
    assert history.reached == reached
