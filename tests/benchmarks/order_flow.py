"""Orders as exchanges see them, and the commands that the product would send for them. Prices lie
around a mid, densest near it; clients have names of an exchange's length, keys are UUIDs.
"""

import random
import uuid
from collections.abc import Sequence
from typing import Any

from hiredis import pack_command
from redis import Redis

from app.domain.refusals import Reason
from app.engine.book import Books, NewOrder, Scripts
from app.engine.executor import DirectExecutor, Reply
from app.engine.scripts import Script
from tests.commands import SIDES, Side

TTL_S = 86_400
CLIENTS = 5_000
MID_TICKS = 6_000_000
NEAREST_TICKS = 50
"""No resting order is nearer to the mid: room for the makers that a benchmark puts in front."""
SIZE_STEP_LOTS = 10_000


class _Recorded(Exception):
    """The command is packed; nothing was sent."""


class _Recorder:
    """In an executor's place: keeps the command that would be sent."""

    def __init__(self) -> None:
        self.packed = b""

    def run(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Reply:
        """Never returns: there is no reply."""
        command: Any = ("EVALSHA", script.sha, len(keys), *keys, *args)
        self.packed = pack_command(command)
        raise _Recorded


class Packer:
    """Commands of one book as bytes, exactly as the product would send them."""

    def __init__(self, symbol: str, scripts: Scripts) -> None:
        self._symbol = symbol
        self._recorder = _Recorder()
        self._books = Books(self._recorder, TTL_S, scripts)

    def place(self, order: NewOrder) -> bytes:
        """See `Books.place`."""
        try:
            self._books.place(self._symbol, order)
        except _Recorded:
            return self._recorder.packed
        raise AssertionError("not reached")

    def cancel(self, number: int) -> bytes:
        """See `Books.cancel`."""
        try:
            self._books.cancel(self._symbol, number, Reason.CANCELLED_BY_CLIENT)
        except _Recorded:
            return self._recorder.packed
        raise AssertionError("not reached")

    def depth(self, levels: int) -> bytes:
        """See `Books.depth`."""
        try:
            self._books.depth(self._symbol, levels)
        except _Recorded:
            return self._recorder.packed
        raise AssertionError("not reached")


class Orders:
    """A seeded source of orders; `with_keys` gives each an idempotency key."""

    def __init__(self, seed: int, *, with_keys: bool = True) -> None:
        self.rng = random.Random(seed)
        self._with_keys = with_keys

    def resting(self) -> NewOrder:
        """Rests behind NEAREST_TICKS, where nothing crosses it."""
        side = self.rng.choice(SIDES)
        away = NEAREST_TICKS + round(self.rng.lognormvariate(5.5, 1.4))
        price = MID_TICKS - away if side == "buy" else MID_TICKS + away
        return self.limit(side, price, self.lots())

    def limit(self, side: Side, price_ticks: int, quantity_lots: int) -> NewOrder:
        """Any limit order."""
        return self._order(side, "limit", "gtc", price_ticks, quantity_lots)

    def market(self, side: Side, quantity_lots: int) -> NewOrder:
        """A market order."""
        return self._order(side, "market", "ioc", None, quantity_lots)

    def lots(self) -> int:
        """Median 0.05 BTC, at most 20."""
        return SIZE_STEP_LOTS * max(1, min(round(self.rng.lognormvariate(6.2, 1.2)), 200_000))

    def _order(
        self, side: Side, kind: str, time_in_force: str, price_ticks: int | None, lots: int
    ) -> NewOrder:
        key = str(uuid.UUID(int=self.rng.getrandbits(128), version=4)) if self._with_keys else ""
        return NewOrder(
            side=side,
            type=kind,
            time_in_force=time_in_force,
            price_ticks=price_ticks,
            quantity_lots=lots,
            client_id=f"trader-{self.rng.randrange(CLIENTS):06d}",
            idempotency_key=key,
            fingerprint=f"{self.rng.getrandbits(44):011x}" if key else "",
        )


def open_book(client: "Redis", symbol: str) -> Packer:
    """A new book, and Redis knows all scripts."""
    scripts = Scripts.load()
    for script in scripts:
        client.script_load(script.source)
    was_new = Books(DirectExecutor(client), TTL_S, scripts).open(symbol)
    assert was_new, f"{symbol} was there"
    return Packer(symbol, scripts)


def numbers_of(replies: Sequence[Any]) -> list[int]:
    """The sequences that accepted commands took: of places, the orders' numbers."""
    refused = [reply for reply in replies if reply[0] != b"accepted"]
    assert not refused, f"{len(refused)} commands refused, first {refused[0]}"
    return [int(reply[1]) for reply in replies]
