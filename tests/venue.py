"""The product's engine behind the tests' own words: hands commands to the scripts, reads answers,
events and the whole book as they lie in Redis, and holds them against the reference matcher.
"""

from collections.abc import Iterable
from typing import Any

from redis import Redis

from app.domain.events import Event as ProductEvent
from app.domain.events import parse_event
from app.domain.orders import OrderRecord, parse_record
from app.domain.refusals import Reason
from app.engine.book import Books, NewOrder, Placed, Refused, Replayed, Scripts
from app.engine.executor import DirectExecutor
from app.engine.keys import book_keys
from tests import reference
from tests.commands import Cancel, Command, Place, Side
from tests.truth import Fill, Taken

TTL_S = 86_400
SYMBOL = "BTC-USD"
SIDE_NAMES: dict[str, Side] = {"bid": "buy", "ask": "sell"}


def new_order(place: Place) -> NewOrder:
    """A test's order as the API would hand it to the engine."""
    return NewOrder(
        side=place.side,
        type=place.type,
        time_in_force=place.time_in_force,
        price_ticks=place.price_ticks,
        quantity_lots=place.quantity_lots,
        post_only=place.post_only,
        client_id=place.client,
        client_order_id=place.client_order_id or "",
        idempotency_key=place.idempotency_key or "",
        fingerprint=str(abs(hash(place.payload()))) if place.idempotency_key else "",
    )


def _order(record: OrderRecord) -> reference.Order:
    return reference.Order(
        number=record.number,
        client=record.client_id,
        side=record.side,  # type: ignore[arg-type]
        type=record.type,  # type: ignore[arg-type]
        time_in_force=record.time_in_force,  # type: ignore[arg-type]
        post_only=record.post_only,
        price_ticks=record.price_ticks,
        quantity_lots=record.quantity_lots,
        client_order_id=record.client_order_id or None,
        filled_lots=record.filled_lots,
        notional=record.notional,
        status=record.status,  # type: ignore[arg-type]
        reason=record.reason or None,
        sequence=record.sequence,
    )


def _event(event: ProductEvent) -> reference.Event:
    trades = tuple(
        reference.Trade(
            trade.maker_number,
            trade.taker_number,
            trade.price_ticks,
            trade.quantity_lots,
            trade.side,  # type: ignore[arg-type]
            trade.sequence,
            trade.index,
        )
        for trade in event.trades
    )
    levels = sorted(
        reference.LevelChange(SIDE_NAMES[level.side], level.price_ticks, level.total_lots)
        for level in event.levels
    )
    orders = tuple(map(_order, event.orders))
    return reference.Event(event.sequence, event.type, orders, trades, tuple(levels))  # type: ignore[arg-type]


class EngineVenue:
    """One book of the product in `client`'s Redis (bytes answers), fresh unless it is there."""

    def __init__(self, client: Redis, scripts: Scripts | None = None, symbol: str = SYMBOL) -> None:
        self.client = client
        self.symbol = symbol
        self.keys = book_keys(symbol)
        self.books = Books(DirectExecutor(client), TTL_S, scripts)
        self.books.open(symbol)

    def apply(self, command: Command) -> reference.Answer:
        """Execute any command; the answer in the reference's words."""
        try:
            if isinstance(command, Cancel):
                number, reason = command.number, Reason.CANCELLED_BY_CLIENT
                return reference.Cancelled(
                    _order(self.books.cancel(self.symbol, number, reason).order)
                )
            return self._placed(self.books.place(self.symbol, new_order(command)))
        except Refused as refused:
            return reference.Refused(refused.refusal.value)

    def _placed(self, outcome: Placed | Replayed) -> reference.Placed:
        if isinstance(outcome, Replayed):
            first = self.event(outcome.sequence)
            return reference.Placed(first.orders[0], first.trades, replayed=True)
        event = ProductEvent(
            symbol=self.symbol,
            sequence=outcome.sequence,
            type="place",
            time_us=outcome.time_us,
            orders=(outcome.order,),
            fills=outcome.fills,
            levels=(),
        )
        told = _event(event)
        return reference.Placed(told.orders[0], told.trades)

    def event(self, sequence: int) -> reference.Event:
        """One entry of the stream."""
        entry = f"{sequence}-0"
        return self._read_events(self.client.xrange(self.keys.events, entry, entry))[0]

    def events(self, after: int = 0) -> list[reference.Event]:
        """The stream's entries after a sequence, oldest first."""
        return self._read_events(self.client.xrange(self.keys.events, f"({after}-0", "+"))

    def _read_events(self, entries: Iterable[Any]) -> list[reference.Event]:
        return [
            _event(
                parse_event(
                    self.symbol,
                    entry_id.decode(),
                    {name.decode(): value.decode() for name, value in fields.items()},
                )
            )
            for entry_id, fields in entries
        ]

    # The truth runner's venue

    def place(self, place: Place) -> Taken:
        """See `tests.truth.Venue`."""
        answer = self.apply(place)
        assert isinstance(answer, reference.Placed), answer
        fills = [Fill(t.maker, t.price_ticks, t.quantity_lots) for t in answer.trades]
        return Taken(answer.order.number, fills)

    def cancel(self, number: int) -> bool:
        """See `tests.truth.Venue`."""
        return isinstance(self.apply(Cancel(number)), reference.Cancelled)

    def queue(self, side: Side) -> list[tuple[int, int, int]]:
        """(price, remaining, number) as the sorted set and the orders hash tell them."""
        key = self.keys.bids if side == "buy" else self.keys.asks
        entries: Any = self.client.zrange(key, 0, -1, withscores=True)
        orders = self.orders()
        out = []
        for member, score in entries:
            order = orders[int(member[-14:])]
            assert order.is_open
            assert order.side == side
            assert abs(int(score)) == order.price_ticks
            out.append((order.limit_ticks, order.remaining_lots, order.number))
        return out

    def orders(self) -> dict[int, reference.Order]:
        """The orders hash."""
        fields: Any = self.client.hgetall(self.keys.orders)
        return {
            int(number): _order(parse_record(int(number), record.decode()))
            for number, record in fields.items()
        }

    # Against the reference

    def check_against(self, book: reference.ReferenceBook) -> None:
        """Everything in Redis says what the reference says, and nothing else is there."""
        fields: Any = self.client.hgetall(self.keys.book)
        state = {name.decode(): value.decode() for name, value in fields.items()}
        assert int(state["sequence"]) == book.sequence
        for side, prefix in (("buy", "bid:"), ("sell", "ask:")):
            assert self.queue(side) == book.queue(side)  # type: ignore[arg-type]
            totals = {
                int(name.removeprefix(prefix)): int(total)
                for name, total in state.items()
                if name.startswith(prefix)
            }
            assert totals == {price: total for price, total, _ in book.levels(side)}  # type: ignore[arg-type]
        self._check_depth(book)
        self._check_indexes(book)

    def _check_depth(self, book: reference.ReferenceBook) -> None:
        depth = self.books.depth(self.symbol, 1000)
        assert depth.sequence == book.sequence
        for levels, side in ((depth.bids, "buy"), (depth.asks, "sell")):
            told = [(level.price_ticks, level.quantity_lots, level.orders) for level in levels]
            assert told == book.levels(side)  # type: ignore[arg-type]

    def _check_indexes(self, book: reference.ReferenceBook) -> None:
        resting = [order for number, order in self.orders().items() if order == book.order(number)]
        assert len(resting) == self.client.hlen(self.keys.orders), "an order's record differs"
        still_open = [order for order in resting if order.is_open]
        owners: Any = self.client.zrange(self.keys.owners, 0, -1)
        assert sorted(owner.decode() for owner in owners) == sorted(
            f"{order.client}|{order.number:014d}" for order in still_open
        )
        ids: Any = self.client.hgetall(self.keys.client_order_ids)
        assert {name.decode(): int(number) for name, number in ids.items()} == {
            f"{order.client}|{order.client_order_id}": order.number
            for order in still_open
            if order.client_order_id
        }


def play(venue: EngineVenue, book: reference.ReferenceBook, command: Command) -> None:
    """One command to both: answers and events must be equal, and refusals must change nothing."""
    before = book.sequence
    expected, answer = book.apply(command), venue.apply(command)
    assert answer == expected, f"{command}\n  reference: {expected}\n  product:   {answer}"
    told = venue.events(after=before)
    assert told == book.events[before:], f"{command}: events differ"
