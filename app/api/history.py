"""Pages of orders and trades: what Postgres has, with what only the streams know yet laid over it.

Postgres is read first, together with the position that its rows stand for; then everything after
that position comes from the stream, which is trimmed only behind it. So a page is never older than
the last answer that the client got.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from app.api.http import whole_number
from app.api.markets import Markets
from app.api.problems import FieldError, invalid
from app.domain.events import Trade, trade_id
from app.domain.instruments import Market
from app.domain.orders import OPEN, OrderRecord
from app.domain.views import View, order_view, trade_view
from app.engine.reads import BookReads
from app.persistence.queries import (
    DatabaseUnavailable,
    OrderCursor,
    OrderFilter,
    Queries,
    TradeCursor,
)

DEFAULT_PAGE, MAX_PAGE = 100, 1000
OPEN_CHUNK = 500
"""Open orders of a client read from one instrument's index at a time."""
STATUSES = frozenset(
    ("open", "partially_filled", "filled", "cancelled", "expired", "rejected", "pending")
)
LAST_NUMBER = 10**14 - 1

_BEFORE = re.compile(r"(?:([A-Z0-9]+-[A-Z0-9]+)-)?([0-9]{1,14})(?:-([0-9]{1,6}))?")
_CURSOR = re.compile(r"([0-9]{1,16}):([A-Z0-9]+-[A-Z0-9]+):([0-9]{1,14})")

Found = dict[OrderCursor, OrderRecord]


def _key(symbol: str, order: OrderRecord) -> OrderCursor:
    return OrderCursor(order.created_us, symbol, order.number)


def _admits(wanted: OrderFilter, order: OrderRecord) -> bool:
    """Whether an order passes the filter; its instrument is not looked at."""
    return (
        (wanted.client_id is None or order.client_id == wanted.client_id)
        and (not wanted.statuses or order.status in wanted.statuses)
        and (wanted.client_order_id is None or order.client_order_id == wanted.client_order_id)
    )


def _cursor_text(key: OrderCursor) -> str:
    return f"{key[0]}:{key[1]}:{key[2]}"


def _parse_cursor(text: str | None) -> OrderCursor | None:
    if text is None:
        return None
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise invalid([FieldError("cursor", "invalid_value", "not a cursor of this server")])
    return OrderCursor(int(match[1]), match[2], int(match[3]))


class History:
    """Answers the lists of orders and trades. One per process."""

    def __init__(self, reads: BookReads, queries: Queries, markets: Markets) -> None:
        self._reads = reads
        self._queries = queries
        self._markets = markets

    def orders(self, query: Mapping[str, str]) -> View:
        """A page of orders, newest first, and the cursor of the next.

        Raises:
            Problem: 400, or 404 for an unknown instrument. DatabaseUnavailable, EngineUnavailable.
        """
        status = query.get("status")
        if status is not None and status not in STATUSES:
            raise invalid([FieldError("status", "invalid_value", "no such status")])
        wanted = OrderFilter(
            client_id=query.get("client_id"),
            instrument=query.get("instrument"),
            statuses=() if status is None else (status,),
            client_order_id=query.get("client_order_id"),
        )
        limit = whole_number(query, "limit", DEFAULT_PAGE, MAX_PAGE)
        before = _parse_cursor(query.get("cursor"))
        symbols = self._symbols(wanted.instrument)
        if wanted.client_id is not None and status in OPEN:
            page, following = self._open_page(symbols, wanted, limit, before)
        else:
            page, following = self._full_page(symbols, wanted, limit, before)
        views = [order_view(self._markets.require(key[1]), order) for key, order in page]
        return {"orders": views, "next_cursor": following and _cursor_text(following)}

    def _symbols(self, instrument: str | None) -> list[str]:
        if instrument is not None:
            return [self._markets.require(instrument).symbol]
        return [listed.symbol for listed in self._reads.instruments()]

    def _open_page(
        self, symbols: list[str], wanted: OrderFilter, limit: int, before: OrderCursor | None
    ) -> tuple[list[tuple[OrderCursor, OrderRecord]], OrderCursor | None]:
        """From Redis alone: exact, and there while Postgres is away."""
        found: Found = {}
        for symbol in symbols:
            for count, order in enumerate(self._open_orders(symbol, wanted, before), 1):
                found[_key(symbol, order)] = order
                if count > limit:
                    break
        page = sorted(found.items(), reverse=True)
        return page[:limit], page[limit - 1][0] if len(page) > limit else None

    def _open_orders(
        self, symbol: str, wanted: OrderFilter, before: OrderCursor | None
    ) -> Iterator[OrderRecord]:
        assert wanted.client_id is not None
        below = before.number if before is not None and before.symbol == symbol else LAST_NUMBER
        while True:
            numbers = self._reads.open_numbers(symbol, wanted.client_id, below, OPEN_CHUNK)
            for order in self._reads.orders(symbol, numbers):
                earlier = before is None or _key(symbol, order) < before
                if earlier and _admits(wanted, order):
                    yield order
            if len(numbers) < OPEN_CHUNK:
                return
            below = numbers[-1]

    def _full_page(
        self, symbols: list[str], wanted: OrderFilter, limit: int, before: OrderCursor | None
    ) -> tuple[list[tuple[OrderCursor, OrderRecord]], OrderCursor | None]:
        rows, positions = self._queries.orders(wanted, limit + 1, before)
        stored = [(row.cursor, row.order) for row in rows]
        newer = self._unstored(symbols, positions)
        found = {key: newer.get(key, order) for key, order in stored}
        found.update((key, order) for key, order in newer.items() if not before or key < before)
        more = len(stored) > limit
        # Beyond the last row asked for there may be others that Postgres did not return.
        last = stored[limit - 1][0] if more else None
        page = sorted(
            (
                (key, order)
                for key, order in found.items()
                if _admits(wanted, order) and (last is None or key >= last)
            ),
            reverse=True,
        )
        following = page[limit - 1][0] if len(page) > limit else last if more else None
        return page[:limit], following

    def _unstored(self, symbols: Iterable[str], positions: Mapping[str, int]) -> Found:
        """The latest state of every order that changed after Postgres's positions."""
        found: Found = {}
        for symbol in symbols:
            for event in self._reads.tail(symbol, positions.get(symbol, 0)):
                for order in event.orders:
                    found.setdefault(_key(symbol, order), order)
        return found

    def trades(self, query: Mapping[str, str]) -> View:
        """A page of an instrument's trades, newest first, and where the next one begins.

        Raises:
            Problem: 400, or 404 for an unknown instrument. DatabaseUnavailable, EngineUnavailable.
        """
        market = self._markets.require(query["instrument"])
        limit = whole_number(query, "limit", DEFAULT_PAGE, MAX_PAGE)
        before = _parse_before(query.get("before"), market.symbol)
        trades = self._trades(market, limit + 1, before)
        following = None
        if len(trades) > limit:
            last = trades[limit - 1]
            following = trade_id(market.symbol, last.sequence, last.index)
        views = [trade_view(market, trade) for trade in trades[:limit]]
        return {"trades": views, "next_before": following}

    def _trades(self, market: Market, limit: int, before: TradeCursor | None) -> list[Trade]:
        try:
            stored, position = self._queries.trades(market, limit, before)
        except DatabaseUnavailable:
            newest = self._newest_trades(market, 0, limit, before)
            if len(newest) < limit:
                raise
            return newest
        newer = self._newest_trades(market, position, limit, before)
        return (newer + stored)[:limit]

    def _newest_trades(
        self, market: Market, after: int, limit: int, before: TradeCursor | None
    ) -> list[Trade]:
        """Trades that the stream has of events after `after`, newest first, at most `limit`."""
        trades = (
            trade
            for event in self._reads.tail(market.symbol, after)
            for trade in reversed(event.trades)
            if before is None or (trade.sequence, trade.index) < before
        )
        return list(islice(trades, limit))


def _parse_before(text: str | None, symbol: str) -> TradeCursor | None:
    """A trade id, or a sequence: trades of earlier events."""
    if text is None:
        return None
    match = _BEFORE.fullmatch(text)
    if match is None or match[1] not in (None, symbol):
        raise invalid([FieldError("before", "invalid_value", "a trade id of it, or a sequence")])
    return TradeCursor(int(match[2]), int(match[3] or 0))
