"""What a book is at one sequence, kept up by its events: the one model that snapshots, rebuilding
and audits share. Its text, `lines`, is the same whoever computes it (db/README.md, "Snapshots").
Pure; must not know where events come from, nor where a book lies.
"""

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Final, NamedTuple, Self

from app.domain.auditing import (
    Change,
    EventAudit,
    Inconsistent,
    check_status,
    level_of,
    rests,
    shown_lots,
)
from app.domain.events import Event, EventType, parse_fills
from app.domain.instruments import EXACT_LIMIT
from app.domain.orders import NUMBER_DIGITS, OrderRecord, Side, Status, parse_record
from app.domain.rules import Rules, parse_rules_detail, rules_detail

__all__ = ["FORMAT", "BookState", "Inconsistent", "Position", "digest_of", "feeding", "position_of"]

FORMAT: Final = "crossbook-book 1"
"""First line of the text. Another version is another digest of the same book."""

_NO_BUY: Final = 0
_NO_SELL: Final = EXACT_LIMIT - 1
"""Prices of a waiting range that reach no stop of that side."""

_SETTINGS: Final = ("instrument", "sequence", "time", "last", "rules", "killed", "timer")
_WAITING: Final = "waiting_"
"""Before the kind of a stop that was triggered and waits to be carried out."""
_KINDS: Final = ("bid", "ask", "buy_stop", "sell_stop")
_ORDER_KINDS: Final = (*_KINDS, *(f"{_WAITING}{kind}" for kind in _KINDS[2:]))


class Position(NamedTuple):
    """Where an order stands: on which line's kind, and its rank among those of that kind."""

    kind: str
    score: int
    member: str


class BookState:
    """One book. `orders` has the records of open orders by number, as text; `levels` the shown lots
    of each level (`bid:<ticks>`); `timers` when each client's is due, in µs. To be read only.
    """

    def __init__(self, symbol: str, rules: Rules) -> None:
        self.symbol = symbol
        self.sequence = 0
        self.time_us = 0
        """Of the last event; 0 before the first."""
        self.last_ticks: int | None = None
        self.rules = rules
        self.killed: set[str] = set()
        self.timers: dict[str, int] = {}
        self.orders: dict[int, str] = {}
        self.levels: dict[str, int] = {}
        self.open_counts: dict[str, int] = {}
        """Open orders and pending stops by client; none is 0."""
        self.client_order_ids: dict[str, int] = {}
        """`<client>|<client order id>` -> number, of open orders."""
        self.waiting: tuple[int, int] | None = None
        """Lowest and highest trade price since triggered stops wait (STP-6); None: none waits."""
        self._buy_stops: list[int] = []
        self._sell_stops: list[int] = []
        # Their stop prices, ascending.

    @classmethod
    def empty(cls, symbol: str, rules: Rules) -> Self:
        """A book before its first event, as it was listed."""
        return cls(symbol, rules)

    @property
    def pending(self) -> int:
        """How many stops wait to be triggered, or to be carried out."""
        return len(self._buy_stops) + len(self._sell_stops)

    def next_triggered(self) -> tuple[str, int] | None:
        """Side and stop price of the stop that is carried out next (STP-4), where any waits."""
        if self.waiting is not None:
            low, high = self.waiting
            if self._buy_stops and self._buy_stops[0] <= high:
                return Side.BUY, self._buy_stops[0]
            if self._sell_stops and self._sell_stops[-1] >= low:
                return Side.SELL, self._sell_stops[-1]
        return None

    # Following events

    def apply(self, sequence: int, fields: Mapping[str, str]) -> None:
        """Go on to the next event; `fields` as the stream has them.

        Raises:
            Inconsistent: it cannot follow; the state is what it was.
        """
        try:
            if sequence != self.sequence + 1:
                raise Inconsistent(f"it comes after {self.sequence}")
            event, changes = self._read(sequence, fields)
            totals = EventAudit(self, event, changes).new_totals(fields["levels"])
        except (ValueError, KeyError, ArithmeticError) as error:
            why = str(error) if isinstance(error, Inconsistent) else f"unreadable: {error!r}"
            raise Inconsistent(f"{self.symbol} event {sequence}: {why}") from error
        self._follow(event, changes, totals)

    def _read(self, sequence: int, fields: Mapping[str, str]) -> tuple[Event, list[Change]]:
        lines = fields["orders"].split("\n") if fields["orders"] else []
        changes = [self._change(line) for line in lines]
        event = Event(
            symbol=self.symbol,
            sequence=sequence,
            type=fields["type"],
            time_us=int(fields["time"]),
            orders=tuple(change.after for change in changes),
            fills=parse_fills(fields["fills"]),
            levels=(),
            detail=fields.get("detail", ""),
        )
        return event, changes

    def _change(self, line: str) -> Change:
        digits, _, text = line.partition("|")
        number = _number(digits)
        before = self.orders.get(number, "")
        was = parse_record(number, before) if before else None
        return Change(was, parse_record(number, text), before, text)

    def _follow(self, event: Event, changes: list[Change], totals: dict[str, int]) -> None:
        self.sequence, self.time_us = event.sequence, event.time_us
        for change in changes:
            if change.before is not None:
                self._leave(change.before)
            if change.after.is_open:
                self._enter(change.after, change.text_after)
        for level, total in totals.items():
            if total:
                self.levels[level] = total
            else:
                del self.levels[level]
        if event.fills:
            prices = [fill.price_ticks for fill in event.fills]
            self.last_ticks = prices[-1]
            low, high = self.waiting or (prices[0], prices[0])
            self.waiting = min(low, *prices), max(high, *prices)
        if self.waiting is not None and self.next_triggered() is None:
            self.waiting = None
        if event.detail:
            self._set(event)

    def _set(self, event: Event) -> None:
        client, _, value = event.detail.rpartition("|")
        if event.type == EventType.RULES:
            self.rules = parse_rules_detail(event.detail)
        elif event.type == EventType.KILL_SWITCH:
            (self.killed.add if value else self.killed.discard)(client)
        elif event.type == EventType.CANCEL_AFTER:
            self.timers.pop(client, None)
            if value:
                self.timers[client] = int(value)

    def _enter(self, order: OrderRecord, text: str) -> None:
        """Among the open orders, but for its level."""
        self.orders[order.number] = text
        self.open_counts[order.client_id] = self.open_counts.get(order.client_id, 0) + 1
        if order.client_order_id:
            self.client_order_ids[f"{order.client_id}|{order.client_order_id}"] = order.number
        if order.status == Status.PENDING:
            insort(self._stops_of(order), order.stop_price_ticks or 0)

    def _leave(self, order: OrderRecord) -> None:
        """No longer among them, but for its level."""
        del self.orders[order.number]
        self.open_counts[order.client_id] -= 1
        if not self.open_counts[order.client_id]:
            del self.open_counts[order.client_id]
        if order.client_order_id:
            del self.client_order_ids[f"{order.client_id}|{order.client_order_id}"]
        if order.status == Status.PENDING:
            stops = self._stops_of(order)
            del stops[bisect_left(stops, order.stop_price_ticks or 0)]

    def _stops_of(self, order: OrderRecord) -> list[int]:
        return self._buy_stops if order.side == Side.BUY else self._sell_stops

    # As text

    def lines(self) -> Iterator[str]:
        """The book as text, canonical: equal books have equal lines, and only they."""
        yield FORMAT
        yield f"instrument {self.symbol}"
        yield f"sequence {self.sequence}"
        yield f"time {self.time_us}"
        if self.last_ticks is not None:
            yield f"last {self.last_ticks}"
        yield f"rules {rules_detail(self.rules)}"
        yield from (f"killed {client}" for client in sorted(self.killed))
        yield from (f"timer {self.timers[client]} {client}" for client in sorted(self.timers))
        for kind, score, member in sorted(self._positions(), key=_rank):
            number = member[-NUMBER_DIGITS:]
            yield f"{self._mark(kind, score)}{kind} {number}|{self.orders[int(number)]}"

    def digest(self) -> str:
        """SHA-256 in hex of `lines` joined by newlines, as UTF-8."""
        return digest_of(self.lines())

    def _positions(self) -> Iterator[Position]:
        return (position_of(parse_record(number, text)) for number, text in self.orders.items())

    def _mark(self, kind: str, score: int) -> str:
        low, high = self.waiting or (_NO_SELL, _NO_BUY)
        waits = (kind == "buy_stop" and score <= high) or (kind == "sell_stop" and -score >= low)
        return _WAITING if waits else ""

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> Self:
        """The book that has these lines. The prices of `waiting` are not among them: they become
        others that reach the same stops. That makes no difference: while stops wait no stop price
        enters (STP-7), and trades at other prices widen the range to reach what they reach.

        Raises:
            Inconsistent: they are not the lines of a book.
        """
        source = iter(lines)
        if next(source, None) != FORMAT:
            raise Inconsistent(f"a text that does not begin with {FORMAT!r}")
        settings: dict[str, list[str]] = {name: [] for name in _SETTINGS}
        try:
            first = _read_settings(source, settings)
            book = cls._begun(settings)
            for line in chain(first, source):
                _add_line(book, line)
        except (ValueError, KeyError, ArithmeticError) as error:
            raise Inconsistent(f"unreadable as a book: {error}") from error
        return book

    @classmethod
    def _begun(cls, settings: Mapping[str, list[str]]) -> Self:
        (symbol,), (sequence,), (time_us,) = (settings[name] for name in _SETTINGS[:3])
        (rules,) = settings["rules"]
        book = cls(symbol, parse_rules_detail(rules))
        book.sequence, book.time_us = int(sequence), int(time_us)
        book.last_ticks = int(settings["last"][0]) if settings["last"] else None
        book.killed = set(settings["killed"])
        for timer in settings["timer"]:
            due_us, _, client = timer.partition(" ")
            book.timers[client] = int(due_us)
        return book

    # From parts, by whoever reads a book that lies somewhere

    def add(self, number: int, text: str) -> OrderRecord:
        """Add one open order to what is there.

        Raises:
            Inconsistent: it is not open, is there already, or does not fit.
        """
        order = parse_record(number, text)
        check_status(order)
        if not order.is_open or number in self.orders or number > self.sequence:
            raise Inconsistent(f"order {number} is not open, or there twice")
        self._enter(order, text)
        if rests(order):
            level = level_of(order)
            self.levels[level] = self.levels.get(level, 0) + shown_lots(order)
        return order

    def wait(self, stop: OrderRecord) -> None:
        """Note that this stop was triggered."""
        low, high = self.waiting or (_NO_SELL, _NO_BUY)
        ticks = stop.stop_price_ticks or 0
        if stop.side == Side.BUY:
            self.waiting = low, max(high, ticks)
        else:
            self.waiting = min(low, ticks), high


def position_of(order: OrderRecord) -> Position:
    """Where an open order stands. Score and member are those of its sorted set in Redis, so that
    the best, or first to be triggered, has the lowest score, and ties go by member.
    """
    number = f"{order.number:0{NUMBER_DIGITS}d}"
    member = f"{order.priority}:{number}" if order.priority else number
    buys = order.side == Side.BUY
    if order.status == Status.PENDING:
        kind, ticks = ("buy_stop" if buys else "sell_stop"), order.stop_price_ticks or 0
        return Position(kind, ticks if buys else -ticks, member)
    kind, ticks = ("bid" if buys else "ask"), order.price_ticks or 0
    return Position(kind, -ticks if buys else ticks, member)


def digest_of(lines: Iterable[str]) -> str:
    """SHA-256 in hex of lines joined by newlines."""
    digest = hashlib.sha256()
    for _ in feeding(digest, lines):
        pass
    return digest.hexdigest()


def feeding(digest: "hashlib._Hash", lines: Iterable[str]) -> Iterator[str]:
    """`lines`, each given to `digest` on its way, for whoever reads them only once."""
    between = b""
    for line in lines:
        digest.update(between + line.encode())
        between = b"\n"
        yield line


def _rank(position: Position) -> tuple[int, int, str]:
    return _KINDS.index(position.kind), position.score, position.member


def _number(digits: str) -> int:
    if len(digits) != NUMBER_DIGITS or not (digits.isascii() and digits.isdigit()):
        raise Inconsistent(f"an order numbered {digits!r}")
    return int(digits)


def _add_line(book: BookState, line: str) -> None:
    kind, _, order_line = line.partition(" ")
    if kind not in _ORDER_KINDS:
        raise Inconsistent(f"a line of an unknown kind {kind!r}")
    digits, _, text = order_line.partition("|")
    order = book.add(_number(digits), text)
    if not kind.endswith(position_of(order).kind):
        raise Inconsistent(f"order {digits} is no {kind}")
    if kind.startswith(_WAITING):
        book.wait(order)


def _read_settings(lines: Iterator[str], settings: dict[str, list[str]]) -> list[str]:
    """Takes the lines before the orders' into `settings`; returns the one after them, if any."""
    for line in lines:
        name, _, value = line.partition(" ")
        if name not in settings:
            return [line]
        settings[name].append(value)
    return []
