"""A book as text: two books with the same text take every further command in the same way, apart
from idempotency keys and the time.
"""

from collections.abc import Iterator

from tests.commands import SIDES
from tests.reference.orders import Order
from tests.reference.state import BookState


def canonical_text(book: BookState) -> str:
    """Lines of words between single spaces, each ended by a newline; `-` is none, yes is 1:

    `sequence <n>`
    `last <price>`, once there was a trade
    `rules <status> <band bps> <max lots> <max notional> <max open orders>`
    `<buy|sell> <price> <remaining> <number> <client> <shown> <ORDER>` per resting order, bids and
    then asks, in queue order
    `stop <buy|sell> <stop price> <price> <remaining> <number> <client> <ORDER>` per pending stop,
    buys and then sells, in the order in which they would trigger
    `waiting <lowest> <highest>` price reached, while triggered stops wait
    `timer <client> <due us>` by client
    `killed <client>` by client

    where ORDER is `<type> <time in force> <post only> <filled> <place> <display> <expires us>
    <self-trade prevention> <client_order_id>`, and the place is the sequence alone.
    """
    return "".join(" ".join(map(_word, line)) + "\n" for line in _lines(book))


def _lines(book: BookState) -> Iterator[tuple[object, ...]]:
    yield "sequence", book.sequence
    if book.last_price_ticks is not None:
        yield "last", book.last_price_ticks
    rules = book.rules
    yield (
        *("rules", rules.status, rules.price_band_bps),
        *(rules.max_order_lots, rules.max_order_notional, rules.max_open_orders),
    )
    for order in (order for side in SIDES for order in book.resting(side)):
        yield (
            *(order.side, order.price_ticks, order.remaining_lots, order.number, order.client),
            *(order.visible_lots, *_terms(order)),
        )
    for order in (order for side in SIDES for order in book.pending(side)):
        yield (
            *("stop", order.side, order.stop_price_ticks, order.price_ticks),
            *(order.remaining_lots, order.number, order.client, *_terms(order)),
        )
    if book.reached() is not None:
        yield "waiting", *(book.reached() or ())
    for client in sorted(book.timers):
        yield "timer", client, book.timers[client]
    for client in sorted(book.killed):
        yield "killed", client


def _terms(order: Order) -> tuple[object, ...]:
    return (
        *(order.type, order.time_in_force, order.post_only, order.filled_lots, order.place[0]),
        *(order.display_lots, order.expires_us, order.self_trade_prevention),
        order.client_order_id,
    )


def _word(value: object) -> str:
    if value is None or value is False:
        return "-"
    return "1" if value is True else str(value)
