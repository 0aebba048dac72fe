"""Seeded order flow: a small adversarial tape on which every rule of the book is met, and a large
realistic one for load. The same seed gives the same tape on every machine. Run as a program it
writes the realistic flow as REST order bodies.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import get_args

from tests.commands import (
    SELF_TRADE_PREVENTIONS,
    SIDES,
    Amend,
    ArmTimer,
    Cancel,
    Command,
    InstrumentStatus,
    KillSwitch,
    MassCancel,
    Place,
    SelfTradePrevention,
    SetRules,
    Side,
    Sweep,
    Tick,
    limit,
    market,
    opposite,
)
from tests.reference import LEVEL_TOTAL_LIMIT_LOTS, Order, ReferenceBook

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
    stops: bool = True,
    book: ReferenceBook | None = None,
) -> Iterator[Command]:
    """`count` commands of every kind that meet on a few prices and reach every outcome that the
    reference knows. A book of its own tells the generator what is open and what time it is, so
    that cancels and amends hit and expiries come near: `book`, fresh and not used elsewhere, or
    one with the usual limits. Triggers that wait, fill limits and cancels in several steps are met
    only where the limits are low, as with low_limits(); play the tape against a book with the same
    limits that begins at the same time. Without stops, since hardly a moment passes in which none
    is pending otherwise, the simple ways of the book are met more often.
    """
    band = range(mid_ticks - band_ticks, mid_ticks + band_ticks + 1)
    names = tuple(f"client-{n}" for n in range(1, clients + 1))
    book = book or ReferenceBook()
    mischief = _Mischief(random.Random(seed), book, names, band, max_lots, stops)
    for _ in range(count):
        command = mischief.command()
        book.apply(command)
        yield command


def low_limits() -> ReferenceBook:
    """A fresh book whose limits an adversarial tape meets."""
    return ReferenceBook(max_fills=6, max_triggers=3, max_cancels=4, max_expiries=3)


@dataclass
class _Mischief:
    """Chooses the next command of an adversarial tape."""

    rng: random.Random
    book: ReferenceBook
    clients: tuple[str, ...]
    band: range
    max_lots: int
    stops: bool

    def __post_init__(self) -> None:
        self._keyed: list[Place] = []
        self._keys = 0
        self._planned: list[Command] = []  # for what takes more than one

    def command(self) -> Command:
        """What closes the book is soon undone; otherwise by weight."""
        if self._planned:
            return self._planned.pop()
        if self.book.rules.status != "open" and self._chance(0.2):
            return self._rules("open")
        if self.book.killed and self._chance(0.1):
            return KillSwitch(min(self.book.killed), engaged=False)
        if self._chance(0.01):
            return self._brim() or self._order()
        choose = self.rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        return choose(self)

    # Orders

    def _order(self) -> Place:
        """A new one, or now and then an earlier keyed one again."""
        if self._keyed and self._chance(0.07):
            return self._repeat()
        place = self._huge() if self._chance(0.01) else self._shaped(self._limit())
        place = replace(
            place,
            client_order_id=self._client_order_id(),
            idempotency_key=self._key(),
            self_trade_prevention=self._mode(),
        )
        if place.idempotency_key is not None:
            self._keyed.append(place)
        return place

    def _repeat(self) -> Place:
        """The same again, with another payload, or of another client."""
        place = self.rng.choice(self._keyed[-40:])
        chance = self.rng.random()
        if chance < 0.6:
            return place
        if chance < 0.8:
            lots = min(place.quantity_lots + 1, LEVEL_TOTAL_LIMIT_LOTS - 1)
            return replace(place, quantity_lots=lots)
        return replace(place, client=self.rng.choice(self.clients))

    def _shaped(self, order: Place) -> Place:
        """The limit order as one of every shape."""
        kind = self.rng.random()
        if kind < 0.24:
            return self._stop(order) if self.stops else order
        if kind < 0.36:
            ticks = None if kind < 0.30 else order.price_ticks
            order = replace(order, type="limit" if ticks else "market", price_ticks=ticks)
            return replace(order, time_in_force=self.rng.choice(("ioc", "fok")))
        if kind < 0.44:
            order = replace(order, post_only=True)
        return self._iceberg(self._dated(order))

    def _stop(self, order: Place) -> Place:
        """Of any time in force; mostly on the side of the last price where it waits."""
        order = replace(order, type="stop_limit", stop_price_ticks=self._stop_ticks(order.side))
        if self._chance(0.5):
            order = replace(order, type="stop", price_ticks=None)
        if self._chance(0.4):
            return replace(order, time_in_force=self.rng.choice(("ioc", "fok")))
        order = self._dated(order)
        return order if order.type == "stop" else self._iceberg(order)

    def _dated(self, order: Place) -> Place:
        """Often with an expiry, now and then one that is over."""
        if not self._chance(0.25):
            return order
        ahead = self.rng.randint(-2, 0) if self._chance(0.08) else self.rng.randint(1, 60)
        expires_us = self.book.now_us + ahead * 1000
        return replace(order, time_in_force="gtd", expires_us=expires_us)

    def _iceberg(self, order: Place) -> Place:
        """Often with a part shown."""
        if not self._chance(0.25):
            return order
        shown = self.rng.randint(1, min(order.quantity_lots, 4))
        return replace(order, display_lots=shown)

    def _limit(self) -> Place:
        """Often small; one in twelve large enough to sweep levels."""
        lots = self.rng.randint(1, self.max_lots)
        if self._chance(1 / 12):
            lots *= self.rng.randint(5, 20)
        side = self.rng.choice(SIDES)
        return Place(self._client(), side, "limit", "gtc", lots, self._price(side))

    def _price(self, side: Side) -> int:
        """Leans to the side's own half of the band, so that a book builds up and is hit."""
        two = (self.rng.choice(self.band), self.rng.choice(self.band))
        if self._chance(0.3):
            return two[0]
        return min(two) if side == "buy" else max(two)

    def _stop_ticks(self, side: Side) -> int:
        last = self.book.last_price_ticks or self.band[len(self.band) // 2]
        away = self.rng.randint(0, 1) if self._chance(0.1) else self.rng.randint(1, 4)
        away = -away if self._chance(0.05) else away
        return last + away if side == "buy" else last - away

    def _huge(self) -> Place:
        """Behind all others, where two of its kind overflow their level."""
        side = self.rng.choice(SIDES)
        price = self.band[0] - 1 if side == "buy" else self.band[-1] + 1
        lots = LEVEL_TOTAL_LIMIT_LOTS - self.rng.randint(1, 3)
        place = Place(self._client(), side, "limit", "gtc", lots, price)
        if self.stops and self._chance(0.4):
            ticks = self._stop_ticks(side)
            place = replace(place, type="stop_limit", stop_price_ticks=ticks)
        return place

    def _brim(self) -> Command | None:
        """Fills a level to its limit behind an iceberg that shows less than it could, and then
        takes what it shows, so that its refill finds too little room (ICE-2). Or takes such a wall
        away again.
        """
        orders = [order for side in SIDES for order in self.book.resting(side)]
        walls = [order.number for order in orders if order.quantity_lots > 10**9]
        if walls and self._chance(0.7):
            return Cancel(self.rng.choice(walls))
        tips = [
            order
            for order in orders
            if order.display_lots and order.visible_lots < min(order.display_lots, _hidden(order))
        ]
        if not tips:
            return None
        tip = self.rng.choice(tips)
        ahead = 0
        for order in self.book.resting(tip.side):
            ahead += order.visible_lots
            if order is tip:
                break
        lots = min(ahead, LEVEL_TOTAL_LIMIT_LOTS - 1)
        self._planned.append(market(self._client(), opposite(tip.side), lots))
        totals = {price: total for price, total, _ in self.book.levels(tip.side)}
        lots = LEVEL_TOTAL_LIMIT_LOTS - 1 - totals[tip.limit_ticks]
        return limit(self._client(), tip.side, tip.limit_ticks, max(lots, 1))

    # Changes of orders

    def _cancel(self) -> Cancel:
        return Cancel(self._number())

    def _amend(self) -> Amend:
        """Of price, quantity, stop price or several; what the order must refuse, too."""
        number = self._number()
        order = self.book.order(number)
        if order is None or self._chance(0.05):
            return Amend(number, self._price("buy"), self.rng.randint(1, self.max_lots))
        if self._chance(0.03):
            # Past all limits; or a wall onto a level.
            return Amend(number, quantity_lots=LEVEL_TOTAL_LIMIT_LOTS - self.rng.randint(1, 3))
        pick = self.rng.choice(("price", "quantity", "quantity", "both", "stop"))
        price = order.price_ticks if order.type in ("stop", "market") else self._price(order.side)
        lots = self._lots(order.filled_lots, order.quantity_lots)
        if pick == "stop" and order.status == "pending":
            stop, other = self._stop_ticks(order.side), self._chance(0.3)
            return Amend(number, price if other else None, lots if other else None, stop)
        if pick == "price" and price is not None:
            return Amend(number, price)
        return Amend(number, price if pick == "both" else None, lots)

    def _lots(self, filled: int, quantity: int) -> int:
        """A new total: what is filled, less, or around the old one."""
        if filled and self._chance(0.15):
            return max(1, filled - self.rng.randint(0, 1))
        lots = quantity + self.rng.randint(-self.max_lots, 4)
        return _clamped(lots, range(1, LEVEL_TOTAL_LIMIT_LOTS))

    def _mass_cancel(self) -> MassCancel:
        """From the client's first order on, or from one in between."""
        after = self._number() if self._chance(0.3) else 0
        return MassCancel(self._anyone(), self.rng.choice((None, *SIDES)), after)

    def _number(self) -> int:
        """Mostly of an open order."""
        chance = self.rng.random()
        open_numbers = [n for name in self.clients for n in self.book.open_numbers.get(name, ())]
        if open_numbers and chance < 0.85:
            return self.rng.choice(open_numbers)
        if chance < 0.97:
            return self.rng.randint(0, self.book.sequence)
        return self.book.sequence + self.rng.randint(1, 1000)

    # Time and rules

    def _tick(self) -> Tick:
        """Mostly less than orders and timers last."""
        return Tick(1000 * self.rng.randint(1, 15))

    def _sweep(self) -> Sweep:
        return Sweep()

    def _timer(self) -> ArmTimer:
        return ArmTimer(self._anyone(), max(0, 1000 * self.rng.randint(-10, 40)))

    def _kill_switch(self) -> KillSwitch:
        return KillSwitch(self._anyone(), engaged=self._chance(0.6))

    def _rules(self, status: InstrumentStatus | None = None) -> SetRules:
        """Mostly open; each limit now and then, so low that it is met."""
        chosen = self.rng.choices(get_args(InstrumentStatus), (8, 1, 1))[0]
        lots = self.rng.choice((5, self.max_lots, 3 * self.max_lots))
        return SetRules(
            status or chosen,
            price_band_bps=self.rng.choice((0, 29, 30, 60)) if self._chance(0.3) else None,
            max_order_lots=lots if self._chance(0.1) else None,
            max_order_notional=lots * self.band[0] if self._chance(0.15) else None,
            max_open_orders=self.rng.choice((1, 6, 12)) if self._chance(0.15) else None,
        )

    # Small choices

    def _chance(self, share: float) -> bool:
        return self.rng.random() < share

    def _client(self) -> str:
        return self.rng.choice(self.clients)

    def _anyone(self) -> str:
        """A client, or one who never trades."""
        return "stranger" if self._chance(0.05) else self._client()

    def _mode(self) -> SelfTradePrevention:
        return self.rng.choice(("none", "none", "none", *SELF_TRADE_PREVENTIONS))

    def _client_order_id(self) -> str | None:
        """From a small pool, so that a client often has one open already."""
        return self.rng.choice("abcdefgh") if self._chance(0.25) else None

    def _key(self) -> str | None:
        if not self._chance(0.3):
            return None
        self._keys += 1
        return f"key-{self._keys}"


_WEIGHTS: dict[Callable[[_Mischief], Command], int] = {
    _Mischief._order: 60,
    _Mischief._amend: 13,
    _Mischief._cancel: 7,
    _Mischief._sweep: 5,
    _Mischief._tick: 4,
    _Mischief._mass_cancel: 1,
    _Mischief._timer: 1,
    _Mischief._rules: 2,
    _Mischief._kill_switch: 1,
}


def _hidden(order: Order) -> int:
    return order.remaining_lots - order.visible_lots


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
