"""The door to the books: every command and the depth. The one place that calls the scripts.

Knows scripts and what they return; not who asks, nor what becomes of the events.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, assert_never

from app.domain.events import parse_fills, parse_order_line, parse_orders
from app.domain.orders import OrderType, TimeInForce
from app.domain.refusals import Reason, Refusal
from app.domain.rules import Rules, rule_texts
from app.engine.commands import (
    Amended,
    Amendment,
    Cancel,
    Cancelled,
    Depth,
    Level,
    MassCancelled,
    NewOrder,
    OrderCommand,
    OrderNumber,
    Outcome,
    Placed,
    Refused,
    Replayed,
    RulesChanged,
    Target,
    Timer,
)
from app.engine.executor import Call, EngineFault, Executor, Reply
from app.engine.floors import Floors, Standing
from app.engine.keys import BookKeys, book_keys, symbol_of
from app.engine.scripts import LUA_FOLDER, Script, load

log = logging.getLogger("crossbook.books")

REPEATS_MAX = 2
"""Of a call that a book refused without more: once to learn which book it is, once what time it
is.
"""
MAX_SWEEP_STEPS = 100
"""Steps that one sweep takes at most; each is a script of its own, and others run in between."""


class Scripts(NamedTuple):
    """The scripts of a book, assembled."""

    run_orders: Script
    amend_order: Script
    mass_cancel: Script
    sweep_book: Script
    set_timer: Script
    set_rules: Script
    set_kill_switch: Script
    read_book: Script
    open_book: Script
    install_book: Script

    @classmethod
    def load(cls, folder: Path = LUA_FOLDER) -> "Scripts":
        """Assemble them all from `folder`."""
        return cls(*(load(name, folder) for name in cls._fields))


class Books:
    """The door to all books of one Redis. One instance per process; safe to share.

    Every method raises EngineUnavailable, OutcomeUnknown and EngineFault as `Executor.run` does,
    and Refused with `book_behind` where the book is below its floor.
    """

    def __init__(
        self,
        executor: Executor,
        idempotency_ttl_s: int,
        scripts: Scripts | None = None,
        floors: Floors | None = None,
        tell_behind: Callable[[str, Standing], None] = lambda _symbol, _known: None,
    ) -> None:
        """`tell_behind` is told of each book that is found to be below what is known of it."""
        self._executor = executor
        self._ttl_s = idempotency_ttl_s
        self.scripts = scripts or Scripts.load()
        self.floors = floors or Floors()
        self._tell_behind = tell_behind
        self._keys: dict[str, BookKeys] = {}

    def open(self, symbol: str, rules: Rules | None = None) -> bool:
        """Make the book of `symbol` unless there is one; says whether it made it.

        Raises:
            Refused: `book_missing`: it was lost, since commands of it were acknowledged.
        """
        reply = self._run(self.scripts.open_book, symbol, _pairs(rules or Rules()))
        was_made = bool(reply[0] == b"opened")
        if was_made:
            self.floors.adopt(self._keys_of(symbol).book, int(reply[1]), 0)
        return was_made

    def know(self, symbol: str, sequence: int) -> None:
        """The book has been at `sequence`, as somebody other than Redis tells: Postgres."""
        self.floors.raise_to(self._keys_of(symbol).book, sequence)

    def place(self, symbol: str, order: NewOrder) -> Placed | Replayed:
        """Match and rest one order.

        Raises:
            Refused: with the refusals that `lua/run_orders.lua` names.
        """
        return _placed(self._accepted(self._call(symbol, order)))

    def amend(self, symbol: str, amendment: Amendment) -> Amended:
        """Change one open order, which may make it trade.

        Raises:
            Refused: with the refusals that `lua/amend_order.lua` names; `order_not_found` where
                Redis does not hold the order: Postgres may know it, if it is over.
        """
        return _amended(self._accepted(self._call(symbol, amendment)))

    def cancel(self, symbol: str, cancel: Cancel) -> Cancelled:
        """Take one open order out of the book.

        Raises:
            Refused: `order_not_open`, `instrument_halted`, or `order_not_found` as `amend`.
        """
        return _cancelled(self._accepted(self._call(symbol, cancel)))

    def run_all(
        self, symbol: str, commands: Sequence[OrderCommand]
    ) -> list[Outcome | Refused | Exception]:
        """Carry out commands in their order, sent together; each answers as it would alone."""
        replies = self._replies([self._call(symbol, command) for command in commands])
        return [_outcome(command, reply) for command, reply in zip(commands, replies, strict=True)]

    def mass_cancel(
        self, symbol: str, client_id: str, side: str, reason: Reason, after: int = 0
    ) -> MassCancelled:
        """One step of cancelling a client's open orders whose numbers are above `after`, oldest
        first; `side` empty: both.

        Raises:
            Refused: `instrument_halted`.
        """
        args = (client_id, side, reason, f"{after:014d}")
        _, lines, cursor = self._run(self.scripts.mass_cancel, symbol, args)
        orders = parse_orders(lines.decode())
        if orders:
            self.floors.raise_to(self._keys_of(symbol).book, orders[0].sequence)
        return MassCancelled(orders, int(cursor) if cursor else None)

    def set_timer(self, symbol: str, client_id: str, timeout_us: int) -> Timer:
        """Arm the client's cancel-after timer anew, or disarm it with 0.

        Raises:
            Refused: `timer_due`: it has run out and is about to fire.
        """
        reply = self._run(self.scripts.set_timer, symbol, (client_id, timeout_us))
        return Timer(int(reply[1]), int(reply[2]), int(reply[3]) if reply[3] else None)

    def sweep(self, symbol: str) -> bool:
        """Carry out what is due: triggered stops that wait, expiries, timers. False: more is due
        than was done.
        """
        for _ in range(MAX_SWEEP_STEPS):
            if self._run(self.scripts.sweep_book, symbol, (self._ttl_s,))[1] != b"1":
                return True
        return False

    def sweep_all(self, symbols: Sequence[str]) -> list[bool | Exception]:
        """One step of `sweep` of each of several books, sent together: for each whether all that
        was due is done, or what `sweep` would raise, which keeps no other book from its step.
        """
        calls = [
            Call(self.scripts.sweep_book, self._keys_of(symbol), (self._ttl_s,), floors=self.floors)
            for symbol in symbols
        ]
        return [_swept(reply) for reply in self._replies(calls)]

    def set_rules(self, symbol: str, rules: Rules) -> RulesChanged:
        """Put `rules` in place of those that the book has, from the next command on."""
        reply = self._run(self.scripts.set_rules, symbol, _pairs(rules))
        return RulesChanged(int(reply[1]))

    def set_kill_switch(self, symbol: str, client_id: str, *, engaged: bool) -> RulesChanged:
        """Refuse a client's new orders and amends, or take them again."""
        args = (client_id, "1" if engaged else "")
        return RulesChanged(int(self._run(self.scripts.set_kill_switch, symbol, args)[1]))

    def install(self, symbol: str, built: BookKeys, replaces: int) -> None:
        """Put the book that lies under the keys `built` in place of one at `replaces` or before.

        Raises:
            Refused: `book_changed`: it is beyond that by now.
        """
        keys = (*self._keys_of(symbol), *built)
        _accepted(self._executor.run(Call(self.scripts.install_book, keys, (replaces,))))

    def depth(self, symbol: str, levels: int) -> Depth:
        """The best `levels` of each side at one moment."""
        _, sequence, bids, asks = self._run(self.scripts.read_book, symbol, (levels,))
        return Depth(int(sequence), _levels(bids), _levels(asks))

    def _call(self, symbol: str, command: OrderCommand) -> Call:
        keys, scripts, floors = self._keys_of(symbol), self.scripts, self.floors
        match command:
            case NewOrder():
                return Call(scripts.run_orders, keys, _placing(command), (self._ttl_s,), floors)
            case Amendment():
                return Call(scripts.amend_order, keys, _amending(command), None, floors)
            case Cancel():
                return Call(scripts.run_orders, keys, _cancelling(command), (self._ttl_s,), floors)
            case _:
                assert_never(command)

    def _keys_of(self, symbol: str) -> BookKeys:
        keys = self._keys.get(symbol)
        if keys is None:
            keys = self._keys.setdefault(symbol, book_keys(symbol))
        return keys

    def _run(self, script: Script, symbol: str, args: Sequence[str | int]) -> Reply:
        return self._accepted(Call(script, self._keys_of(symbol), args, floors=self.floors))

    def _accepted(self, call: Call) -> Reply:
        reply = self._executor.run(call)
        for _ in range(REPEATS_MAX):
            if not self._is_to_be_repeated(call, reply):
                break
            reply = self._executor.run(call)
        self._look_at(call, reply)
        return _accepted(reply)

    def _replies(self, calls: list[Call]) -> list[Reply | Exception]:
        replies = self._executor.run_all(calls)
        for _ in range(REPEATS_MAX):
            again = [
                index
                for index, (call, reply) in enumerate(zip(calls, replies, strict=True))
                if not isinstance(reply, Exception) and self._is_to_be_repeated(call, reply)
            ]
            if not again:
                break
            repeated = self._executor.run_all([calls[index] for index in again])
            for index, reply in zip(again, repeated, strict=True):
                replies[index] = reply
        for call, reply in zip(calls, replies, strict=True):
            if not isinstance(reply, Exception):
                self._look_at(call, reply)
        return replies

    def _is_to_be_repeated(self, call: Call, reply: Reply) -> bool:
        """Whether the book did nothing but say what it is now, or what time it is, so that we know
        it again.
        """
        if reply[:2] == _TOO_LATE:
            self.floors.clock.seen(int(reply[2]))
            return True
        if reply[:2] != _BOOK_CHANGED:
            return False
        book, rebuilt, sequence = call.keys[0], int(reply[2] or 0), int(reply[3])
        known = self.floors.of(book)
        is_its_successor = self.floors.adopt(book, rebuilt, sequence)
        if 0 < known.rebuilt < rebuilt and known.floor > sequence:
            lost = {"instrument": symbol_of(book), "acknowledged": known.floor, "is_at": sequence}
            log.error("a book was rebuilt without what was acknowledged", extra=lost)
        return is_its_successor

    def _look_at(self, call: Call, reply: Reply) -> None:
        """Remember what is about to be acknowledged; tell of a book that went back in time, once: a
        book that is known to have says so itself, and its reply is longer.
        """
        if reply[0] == b"accepted":
            self.floors.raise_to(call.keys[0], int(reply[1]))
        elif reply == _BOOK_BEHIND or reply[:2] == _BOOK_CHANGED:
            self._tell_behind(symbol_of(call.keys[0]), self.floors.of(call.keys[0]))


_BOOK_CHANGED = [b"refused", Refusal.BOOK_CHANGED.encode()]
_BOOK_BEHIND = [b"refused", Refusal.BOOK_BEHIND.encode()]
_TOO_LATE = [b"refused", Refusal.TOO_LATE.encode()]
_PLAIN_TYPES = frozenset({OrderType.LIMIT, OrderType.MARKET})
_NEVER_RESTS = frozenset({TimeInForce.IOC, TimeInForce.FOK})


def _placing(order: NewOrder) -> tuple[str | int, ...]:
    prevention = order.self_trade_prevention
    # Every field is text or a whole number by now: none has a `|` in it.
    tail = (
        f"{order.client_id}|{order.client_order_id}|{_time_text(order.expires_us)}|"
        f"{_text(order.display_lots)}|{'' if prevention == 'none' else prevention}|"
        f"{order.side}|{order.type}|{order.time_in_force}|{'1' if order.post_only else ''}|"
        f"{_text(order.stop_price_ticks)}|{order.idempotency_key}"
    )
    return (
        "place",
        order.side,
        _plain(order),
        _text(order.price_ticks),
        order.quantity_lots,
        order.client_id,
        order.client_order_id,
        f"{order.client_id}|{order.idempotency_key}" if order.idempotency_key else "",
        order.fingerprint,
        tail,
    )


def _plain(order: NewOrder) -> str:
    """What a plain order may do, as `lua/lib/new.lua` says; empty where it is not plain."""
    if order.type not in _PLAIN_TYPES or order.display_lots is not None:
        return ""
    if order.time_in_force in _NEVER_RESTS:
        return "take"
    if order.time_in_force != TimeInForce.GTC:
        return ""
    return "rest" if order.post_only else "both"


def _text(units: int | None) -> str | int:
    return "" if units is None else units


def _time_text(time_us: int | None) -> str:
    """As wide as times of this century, because the scripts compare them as texts."""
    return "" if time_us is None else f"{max(time_us, 0):016d}"


def _pairs(rules: Rules) -> list[str]:
    return [text for pair in rule_texts(rules).items() for text in pair]


def _naming(target: Target) -> tuple[str, str]:
    """The first two arguments of a script that is about one order."""
    if isinstance(target, OrderNumber):
        return f"{target.number:014d}", ""
    return "", f"{target.client_id}|{target.client_order_id}"


def _amending(amendment: Amendment) -> tuple[str | int, ...]:
    return (
        *_naming(amendment.target),
        _text(amendment.price_ticks),
        _text(amendment.quantity_lots),
        _text(amendment.stop_price_ticks),
    )


def _cancelling(cancel: Cancel) -> tuple[str | int, ...]:
    return ("cancel", *_naming(cancel.target), cancel.reason)


def _outcome(command: OrderCommand, reply: Reply | Exception) -> Outcome | Refused | Exception:
    if isinstance(reply, Exception):
        return reply
    try:
        match command:
            case NewOrder():
                return _placed(_accepted(reply))
            case Amendment():
                return _amended(_accepted(reply))
            case Cancel():
                return _cancelled(_accepted(reply))
            case _:
                assert_never(command)
    except (Refused, EngineFault) as error:
        return error


def _accepted(reply: Reply) -> Reply:
    if reply[0] != b"refused":
        return reply
    try:
        refusal = Refusal(reply[1].decode())
    except ValueError as error:
        raise EngineFault(f"a script refused with an unknown code: {reply[1]!r}") from error
    raise Refused(refusal)


def _swept(reply: Reply | Exception) -> bool | Exception:
    if isinstance(reply, Exception):
        return reply
    try:
        return bool(_accepted(reply)[1] != b"1")
    except (Refused, EngineFault) as error:
        return error


def _placed(reply: Reply) -> Placed | Replayed:
    if reply[0] == b"replayed":
        return Replayed(int(reply[1]))
    _, sequence, time_us, line, fills = reply
    order = parse_order_line(line.decode())
    return Placed(int(sequence), int(time_us), order, parse_fills(fills.decode()))


def _amended(reply: Reply) -> Amended:
    _, sequence, time_us, line, fills = reply
    order = parse_order_line(line.decode())
    return Amended(int(sequence), int(time_us), order, parse_fills(fills.decode()))


def _cancelled(reply: Reply) -> Cancelled:
    _, sequence, time_us, line = reply
    return Cancelled(int(sequence), int(time_us), parse_order_line(line.decode()))


def _levels(flat: list[bytes | int]) -> tuple[Level, ...]:
    return tuple(
        Level(int(flat[i]), int(flat[i + 1]), int(flat[i + 2])) for i in range(0, len(flat), 3)
    )
