"""The commands of a book: place, cancel, read depth. The one place that calls the scripts.

Knows scripts and what they return; not who asks, nor what becomes of the events.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from app.domain.events import Fill, parse_fills, parse_order_line
from app.domain.orders import OrderRecord
from app.domain.refusals import Reason, Refusal
from app.engine.executor import EngineFault, Executor, Reply
from app.engine.keys import BookKeys, book_keys
from app.engine.scripts import LUA_FOLDER, Script, load


class Scripts(NamedTuple):
    """The scripts of a book, assembled."""

    place_order: Script
    cancel_order: Script
    read_book: Script
    open_book: Script

    @classmethod
    def load(cls, folder: Path = LUA_FOLDER) -> "Scripts":
        """Assemble them all from `folder`."""
        return cls(*(load(name, folder) for name in cls._fields))


class NewOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An order as the book takes it: checked, in ticks and lots. Empty text: not given."""

    side: str
    type: str
    time_in_force: str
    price_ticks: int | None
    quantity_lots: int
    post_only: bool = False
    client_id: str
    client_order_id: str = ""
    idempotency_key: str = ""
    fingerprint: str = ""
    """Of the payload; two uses of an idempotency key are the same if theirs are equal."""


class Refused(Exception):
    """The book refused the command and is unchanged."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


class Placed(msgspec.Struct, frozen=True):
    """An accepted order in the state right after matching, with its fills."""

    sequence: int
    time_us: int
    order: OrderRecord
    fills: tuple[Fill, ...]


class Replayed(msgspec.Struct, frozen=True):
    """The idempotency key was used before for this payload: the answer is that event's."""

    sequence: int


class Cancelled(msgspec.Struct, frozen=True):
    """A cancelled order in its final state."""

    sequence: int
    time_us: int
    order: OrderRecord


class Level(msgspec.Struct, frozen=True):
    """One price of one side: lots that rest there, in how many orders."""

    price_ticks: int
    quantity_lots: int
    orders: int


class Depth(msgspec.Struct, frozen=True):
    """Both sides at one sequence, best level first."""

    sequence: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


class Books:
    """The door to all books of one Redis. One instance per process; safe to share."""

    def __init__(
        self, executor: Executor, idempotency_ttl_s: int, scripts: Scripts | None = None
    ) -> None:
        self._executor = executor
        self._ttl_s = idempotency_ttl_s
        self._scripts = scripts or Scripts.load()
        self._keys: dict[str, BookKeys] = {}

    def open(self, symbol: str) -> bool:
        """Make the book of `symbol` unless there is one; says whether it made it."""
        reply = self._run(self._scripts.open_book, symbol, ())
        return bool(reply[0] == b"opened")

    def place(self, symbol: str, order: NewOrder) -> Placed | Replayed:
        """Match and rest one order.

        Raises:
            Refused: with the refusals that `lua/place_order.lua` names.
            EngineUnavailable, OutcomeUnknown, EngineFault: see `Executor.run`.
        """
        reply = self._run(self._scripts.place_order, symbol, self._place_arguments(order))
        if reply[0] == b"replayed":
            return Replayed(int(reply[1]))
        _, sequence, time_us, line, fills = reply
        return Placed(
            int(sequence),
            int(time_us),
            parse_order_line(line.decode()),
            parse_fills(fills.decode()),
        )

    def cancel(self, symbol: str, number: int, reason: Reason) -> Cancelled:
        """Take one resting order out of the book.

        Raises:
            Refused: `order_not_open`, or `order_not_found` where Redis does not hold the order:
                Postgres may know it, if it is over.
        """
        reply = self._run(self._scripts.cancel_order, symbol, (f"{number:014d}", reason))
        _, sequence, time_us, line = reply
        return Cancelled(int(sequence), int(time_us), parse_order_line(line.decode()))

    def depth(self, symbol: str, levels: int) -> Depth:
        """The best `levels` of each side at one moment."""
        _, sequence, bids, asks = self._run(self._scripts.read_book, symbol, (levels,))
        return Depth(int(sequence), _levels(bids), _levels(asks))

    def _place_arguments(self, order: NewOrder) -> tuple[str | int, ...]:
        return (
            order.side,
            order.type,
            order.time_in_force,
            "" if order.price_ticks is None else order.price_ticks,
            order.quantity_lots,
            "1" if order.post_only else "",
            order.client_id,
            order.client_order_id,
            order.idempotency_key,
            order.fingerprint,
            self._ttl_s,
        )

    def _run(self, script: Script, symbol: str, args: Sequence[str | int]) -> Reply:
        keys = self._keys.get(symbol)
        if keys is None:
            keys = self._keys.setdefault(symbol, book_keys(symbol))
        reply = self._executor.run(script, keys, args)
        if reply[0] == b"refused":
            raise Refused(_refusal(reply[1]))
        return reply


def _refusal(code: bytes) -> Refusal:
    try:
        return Refusal(code.decode())
    except ValueError as error:
        raise EngineFault(f"a script refused with an unknown code: {code!r}") from error


def _levels(flat: list[bytes | int]) -> tuple[Level, ...]:
    return tuple(
        Level(int(flat[i]), int(flat[i + 1]), int(flat[i + 2])) for i in range(0, len(flat), 3)
    )
