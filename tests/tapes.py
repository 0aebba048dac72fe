"""Seeded order flow: a small adversarial tape on which every rule of the book is met, and a large
realistic one for load. The same seed gives the same tape on every machine. Run as a program it
writes the realistic flow as REST order bodies.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.commands import SIDES, Cancel, Command, Place, Side
from tests.reference import LEVEL_TOTAL_LIMIT_LOTS, MAX_FILLS_PER_COMMAND, ReferenceBook

# BTC-USD: a tick is 0.01 USD, a lot 0.00000001 BTC.
PRICE_DECIMALS = 2
QUANTITY_DECIMALS = 8


# The adversarial tape


def commands(
    seed: int,
    count: int,
    *,
    clients: int = 4,
    mid_ticks: int = 1000,
    band_ticks: int = 6,
    max_lots: int = 12,
    max_fills_per_command: int = MAX_FILLS_PER_COMMAND,
) -> Iterator[Command]:
    """`count` commands that meet on a few prices and reach every outcome that the reference knows:
    all types and times in force, repeats and misuse of idempotency keys and client_order_ids,
    cancels of open, finished and unknown orders, levels near their limit. A book of its own tells
    the generator what is open, so that cancels hit. The fill limit is met only where it is low,
    as with max_fills_per_command=6; play the tape against a book with the same limit.
    """
    band = range(mid_ticks - band_ticks, mid_ticks + band_ticks + 1)
    names = tuple(f"client-{n}" for n in range(1, clients + 1))
    book = ReferenceBook(max_fills_per_command)
    mischief = _Mischief(random.Random(seed), book, names, band, max_lots)
    for _ in range(count):
        command = mischief.command()
        book.apply(command)
        yield command


@dataclass
class _Mischief:
    """Chooses the next command of an adversarial tape."""

    rng: random.Random
    book: ReferenceBook
    clients: tuple[str, ...]
    band: range
    max_lots: int

    def __post_init__(self) -> None:
        self._keyed: list[Place] = []
        self._keys = 0

    def command(self) -> Command:
        """A cancel in a quarter of the cases, else an order."""
        if self.rng.random() < 0.25:
            return Cancel(self._number())
        if self._keyed and self.rng.random() < 0.05:
            return self._repeat()
        place = self._place()
        if place.idempotency_key is not None:
            self._keyed.append(place)
        return place

    def _number(self) -> int:
        """Mostly of an open order."""
        chance = self.rng.random()
        resting = [number for side in SIDES for _, _, number in self.book.queue(side)]
        if resting and chance < 0.7:
            return self.rng.choice(resting)
        if chance < 0.9:
            return self.rng.randint(0, self.book.sequence)
        return self.book.sequence + self.rng.randint(1, 1000)

    def _repeat(self) -> Place:
        """An earlier keyed order: the same again, with another payload, or of another client."""
        place = self.rng.choice(self._keyed[-40:])
        chance = self.rng.random()
        if chance < 0.6:
            return place
        if chance < 0.8:
            return replace(place, quantity_lots=place.quantity_lots + 1)
        return replace(place, client=self.rng.choice(self.clients))

    def _place(self) -> Place:
        order = self._huge() if self.rng.random() < 0.005 else self._limit()
        kind = self.rng.random()
        if kind < 0.08:
            order = replace(order, post_only=True)
        elif kind < 0.18:
            order = replace(order, time_in_force="ioc")
        elif kind < 0.28:
            order = replace(order, time_in_force="fok")
        elif kind < 0.36:
            order = replace(order, type="market", time_in_force="ioc", price_ticks=None)
        elif kind < 0.40:
            order = replace(order, type="market", time_in_force="fok", price_ticks=None)
        return replace(order, client_order_id=self._client_order_id(), idempotency_key=self._key())

    def _limit(self) -> Place:
        """Often small; one in twelve large enough to sweep levels."""
        lots = self.rng.randint(1, self.max_lots)
        if self.rng.random() < 1 / 12:
            lots *= self.rng.randint(5, 20)
        side = self.rng.choice(SIDES)
        return Place(self._client(), side, "limit", "gtc", lots, self._price(side))

    def _price(self, side: Side) -> int:
        """Leans to the side's own half of the band, so that a book builds up and is hit."""
        two = (self.rng.choice(self.band), self.rng.choice(self.band))
        if self.rng.random() < 0.3:
            return two[0]
        return min(two) if side == "buy" else max(two)

    def _huge(self) -> Place:
        """Behind all others, where two of its kind overflow their level."""
        side = self.rng.choice(SIDES)
        price = self.band[0] - 1 if side == "buy" else self.band[-1] + 1
        lots = LEVEL_TOTAL_LIMIT_LOTS - self.rng.randint(1, 3)
        return Place(self._client(), side, "limit", "gtc", lots, price)

    def _client(self) -> str:
        return self.rng.choice(self.clients)

    def _client_order_id(self) -> str | None:
        """From a small pool, so that a client often has one open already."""
        return self.rng.choice("abcdefgh") if self.rng.random() < 0.4 else None

    def _key(self) -> str | None:
        if self.rng.random() < 0.7:
            return None
        self._keys += 1
        return f"key-{self._keys}"


# The realistic flow


def realistic_orders(
    *,
    seed: int,
    count: int = 100_000,
    clients: int = 50,
    mid_ticks: int = 6_000_000,
    band_ticks: int = 300_000,
    market_share: float = 0.02,
) -> Iterator[Place]:
    """Exactly `count` limit orders inside mid_ticks ± band_ticks, around a mid that wanders and
    densest near the touch, with lognormal sizes; between them bursts of market orders, on average
    `market_share` per limit order (0 for none). One in eight limits is priced through the mid.
    """
    rng = random.Random(seed)
    names = [f"trader-{n:02}" for n in range(1, clients + 1)]
    band = range(mid_ticks - band_ticks, mid_ticks + band_ticks + 1)
    mid = float(mid_ticks)
    for _ in range(count):
        # Pulled back to the centre a little, or it would end at the edge of the band.
        mid += rng.gauss(0, 8) + (mid_ticks - mid) * 0.00001
        side = rng.choice(SIDES)
        price = _clamped(round(mid) + _offset(rng, side), band)
        yield Place(rng.choice(names), side, "limit", "gtc", _lots(rng), price)
        if rng.random() < market_share / _BURST_MEAN:
            yield from _burst(rng, names)


_BURST_MEAN = 8  # market orders


def _burst(rng: random.Random, names: list[str]) -> Iterator[Place]:
    """One side hits the book several times in a row."""
    side = rng.choice(SIDES)
    for _ in range(rng.randint(1, 2 * _BURST_MEAN - 1)):
        yield Place(rng.choice(names), side, "market", "ioc", 2 * _lots(rng))


def _offset(rng: random.Random, side: Side) -> int:
    """Distance from the mid in ticks; below it for a passive buy. Most lie within a few dollars,
    a tail reaches far.
    """
    away = 1 + round(rng.lognormvariate(5.5, 1.4))
    if rng.random() < 0.125:
        away = -min(away, 500)
    return -away if side == "buy" else away


def _lots(rng: random.Random) -> int:
    """Median 0.05 BTC, between 0.0001 and 20, in steps of 0.0001."""
    return 10_000 * _clamped(round(rng.lognormvariate(6.2, 1.2)), range(1, 200_001))


def _clamped(value: int, band: range) -> int:
    return max(band[0], min(band[-1], value))


# As REST bodies


def rest_body(place: Place, instrument: str = "BTC-USD") -> dict[str, str]:
    """The body of POST /orders for a BTC-USD order, with exact decimals as strings."""
    body = {
        "instrument": instrument,
        "client_id": place.client,
        "side": place.side,
        "type": place.type,
        "time_in_force": place.time_in_force,
        "quantity": decimal_text(place.quantity_lots, QUANTITY_DECIMALS),
    }
    if place.price_ticks is not None:
        body["price"] = decimal_text(place.price_ticks, PRICE_DECIMALS)
    return body


def decimal_text(units: int, decimals: int) -> str:
    """A whole number of 10**-decimals, written out: (123, 2) is 1.23."""
    whole, fraction = divmod(units, 10**decimals)
    return f"{whole}.{fraction:0{decimals}}"


def main() -> None:
    """Writes the realistic flow to standard output, and its seed to standard error."""
    parser = argparse.ArgumentParser(prog="python -m tests.tapes", description=main.__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100_000, help="limit orders")
    parser.add_argument("--market-share", type=float, default=0.02, help="market orders per limit")
    parser.add_argument("--format", choices=["jsonl"], default="jsonl")
    chosen = parser.parse_args()
    sys.stderr.write(f"seed {chosen.seed}\n")
    flow = realistic_orders(seed=chosen.seed, count=chosen.count, market_share=chosen.market_share)
    for place in flow:
        sys.stdout.write(json.dumps(rest_body(place)) + "\n")


if __name__ == "__main__":
    main()
