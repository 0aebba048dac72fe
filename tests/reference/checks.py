"""What is refused, in the order in which it is looked at. Reads a book's state, changes nothing;
a function `refuses_…` gives the code of the refusal, or None.
"""

from dataclasses import replace

from tests.commands import Amend, Place, Side
from tests.reference.matching import LEVEL_TOTAL_LIMIT_LOTS, Match
from tests.reference.orders import Order, Placed, Refused
from tests.reference.state import BookState


def earlier_answer(book: BookState, place: Place) -> Placed | Refused | None:
    """CMD-4; None where the order is a new one."""
    if place.idempotency_key is None:
        return None
    earlier = book.answers.get((place.client, place.idempotency_key))
    if earlier is None:
        return None
    payload, answer = earlier
    if payload != place.payload():
        return Refused("idempotency_key_reused")
    return replace(answer, replayed=True)


def refuses_place(book: BookState, place: Place) -> str | None:
    """What can be said before the order is matched."""
    closed = closed_to(book, place.client)
    if closed is not None:
        return closed
    if place.expires_us is not None and place.expires_us <= book.now_us:
        return "expires_in_past"
    if (place.client, place.client_order_id) in book.open_client_order_ids:
        return "duplicate_client_order_id"
    return _refuses_new_terms(book, place)


def _refuses_new_terms(book: BookState, place: Place) -> str | None:
    price = place.price_ticks if place.price_ticks is not None else place.stop_price_ticks
    if is_too_large(book, place.quantity_lots, price) or has_too_many(book, place):
        return "risk_limit"
    if place.type == "limit" and is_outside_band(book, place.price_ticks):
        return "price_band"
    if place.stop_price_ticks is not None:
        return refuses_stop_price(book, place.side, place.stop_price_ticks)
    return None


def refuses_amend(book: BookState, order: Order, amend: Amend) -> str | None:
    """What can be said before what the order would become is looked at."""
    if not order.is_open or order.is_past_expiry(book.now_us):
        return "order_not_open"
    closed = closed_to(book, order.client)
    if closed is not None:
        return closed
    has_no_price = amend.price_ticks is not None and order.price_ticks is None
    has_no_stop = amend.stop_price_ticks is not None and order.status != "pending"
    if has_no_price or has_no_stop:
        return "not_amendable"
    if amend.quantity_lots is not None and amend.quantity_lots < order.filled_lots:
        return "amend_below_filled"
    return None


def refuses_terms(book: BookState, order: Order, after: Order) -> str | None:
    """AMD-6, as far as it can be said before the order is matched."""
    if after == order:
        return None
    price = after.price_ticks if after.price_ticks is not None else after.stop_price_ticks
    if is_too_large(book, after.quantity_lots, price):
        return "risk_limit"
    if order.status != "pending":
        moved = after.price_ticks != order.price_ticks
        return "price_band" if moved and is_outside_band(book, after.price_ticks) else None
    if after.stop_price_ticks != order.stop_price_ticks:
        return refuses_stop_price(book, order.side, after.trigger_ticks)
    return None


def refuses_match(book: BookState, match: Match, settled: Order) -> str | None:
    """What only matching tells."""
    if match.would_cross:
        return "post_only_would_cross"
    limit = book.rules.max_order_notional
    if settled.type == "market" and limit is not None and match.notional > limit:
        return "risk_limit"
    return "level_quantity_overflow" if overflows(book, settled) else None


def closed_to(book: BookState, client: str) -> str | None:
    """STA, and RSK-4."""
    if book.rules.status == "halted":
        return "instrument_halted"
    if book.rules.status == "cancel_only":
        return "cancel_only"
    return "kill_switch" if client in book.killed else None


def is_too_large(book: BookState, quantity_lots: int, price_ticks: int | None) -> bool:
    """RSK-1, and RSK-2 where there is a price."""
    lots, notional = book.rules.max_order_lots, book.rules.max_order_notional
    if lots is not None and quantity_lots > lots:
        return True
    return notional is not None and (price_ticks or 0) * quantity_lots > notional


def has_too_many(book: BookState, place: Place) -> bool:
    """RSK-3."""
    limit = book.rules.max_open_orders
    may_rest = place.stop_price_ticks is not None or (
        place.type == "limit" and place.time_in_force in ("gtc", "gtd")
    )
    return may_rest and limit is not None and len(book.open_numbers.get(place.client, ())) >= limit


def band(book: BookState) -> tuple[int, int] | None:
    """BND-1: lowest and highest price inside."""
    if book.rules.price_band_bps is None or book.last_price_ticks is None:
        return None
    width = book.last_price_ticks * book.rules.price_band_bps // 10_000
    return book.last_price_ticks - width, book.last_price_ticks + width


def is_outside_band(book: BookState, price_ticks: int | None) -> bool:
    """BND-2."""
    inside = band(book)
    if inside is None or price_ticks is None:
        return False
    return not inside[0] <= price_ticks <= inside[1]


def worst_ticks(book: BookState, taker: Order) -> int | None:
    """The last price that a taker may trade at: its own, or the band's far end (BND-3)."""
    if taker.price_ticks is not None:
        return taker.price_ticks
    inside = band(book)
    if inside is None:
        return None
    return inside[1] if taker.side == "buy" else inside[0]


def refuses_stop_price(book: BookState, side: Side, stop_ticks: int) -> str | None:
    """STP-7, STP-3."""
    if book.stops.next_triggered() is not None:
        return "triggers_outstanding"
    last = book.last_price_ticks
    if last is None:
        return None
    reached = last >= stop_ticks if side == "buy" else last <= stop_ticks
    return "stop_would_trigger" if reached else None


def overflows(book: BookState, order: Order) -> bool:
    """MAT-8: of an order as it would rest."""
    if not order.rests:
        return False
    others = book.sides[order.side].total(order.limit_ticks)
    before = book.orders.get(order.number)
    if before is not None and before.rests and before.price_ticks == order.price_ticks:
        others -= before.visible_lots
    return others + order.visible_lots >= LEVEL_TOTAL_LIMIT_LOTS


def anything_due(book: BookState) -> bool:
    """Whether another sweep would do something, of a book that is not halted."""
    if book.rules.status == "open" and book.stops.next_triggered() is not None:
        return True
    if book.expiries and book.expiries[0][0] <= book.now_us:
        return True
    return any(due_us <= book.now_us for due_us in book.timers.values())
