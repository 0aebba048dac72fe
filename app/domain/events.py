"""Events: one for each accepted command, with all that it changed.

An event is an entry of the stream `{SYMBOL}:events`, a row of the event store, and the input of the
feed. Its id is `<sequence>-0`. Text fields, as `lua/lib/commit.lua` writes them
(and the scripts that are written out: usual, cancelling, announcing):

    type    one of EventType
    time    microseconds since 1970 (Redis's clock; never goes back within a book)
    orders  every order that changed, `number|record` a line, the command's own order first
    fills   `maker number,ticks,lots` separated by spaces, in the order of execution
    levels  `bid:ticks=lots` or `ask:ticks=lots`: new totals separated by spaces, 0 when emptied
    detail  of `rules`, `kill_switch` and `cancel_after`: what they set; of `place`, where the order
            has an idempotency key: the fingerprint of its payload; see `Event.detail`
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from app.domain.orders import OrderRecord, parse_record

EVENT_FIELDS = ("type", "time", "orders", "fills", "levels")
"""What every event has; `detail` comes after them where there is one."""


class EventType(StrEnum):
    """Kinds of accepted commands, and of what they set off."""

    PLACE = "place"
    AMEND = "amend"
    CANCEL = "cancel"
    MASS_CANCEL = "mass_cancel"
    TRIGGER = "trigger"
    """A stop that was triggered, as a taker."""
    EXPIRE = "expire"
    CANCEL_AFTER = "cancel_after"
    """A timer was armed, disarmed, or fired (then with the orders that it cancelled)."""
    RULES = "rules"
    KILL_SWITCH = "kill_switch"


class Fill(msgspec.Struct, frozen=True):
    """One execution against a resting order, at that order's price."""

    maker_number: int
    price_ticks: int
    quantity_lots: int


class Trade(msgspec.Struct, frozen=True):
    """One fill with everything that names it; `index` counts the fills of one event from 1."""

    sequence: int
    index: int
    price_ticks: int
    quantity_lots: int
    side: str
    maker_number: int
    taker_number: int
    time_us: int


class LevelChange(msgspec.Struct, frozen=True):
    """A price level's new total. `side` is 'bid' or 'ask'; total 0: the level is gone."""

    side: str
    price_ticks: int
    total_lots: int


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted command of one instrument and all its effects."""

    symbol: str
    sequence: int
    type: str
    time_us: int
    orders: tuple[OrderRecord, ...]
    fills: tuple[Fill, ...]
    levels: tuple[LevelChange, ...]
    detail: str = ""
    """`rules`: `field=value` separated by spaces, of all rules that are set. `kill_switch`:
    `<client>|1` where it is on now, else `<client>|`. `cancel_after`: `<client>|<due in µs>` where
    the timer is armed now, else `<client>|`. `place`: what the record of an idempotency key is made
    again from when Redis is rebuilt.
    """

    @property
    def order(self) -> OrderRecord:
        """The order that the command was about, the taker where it traded. Of some events there is
        none: see `orders`.
        """
        return self.orders[0]

    @property
    def trades(self) -> list[Trade]:
        """The event's fills as trades, in the order of execution."""
        if not self.fills:
            return []
        return trades_of(self.order, self.sequence, self.time_us, self.fills)


def parse_fills(text: str) -> tuple[Fill, ...]:
    """Read the `fills` field."""
    return tuple(
        Fill(int(maker), int(price), int(quantity))
        for maker, price, quantity in (part.split(",") for part in text.split())
    )


def parse_order_line(line: str) -> OrderRecord:
    """Read one line of the `orders` field: `number|record`."""
    number, _, record = line.partition("|")
    return parse_record(int(number), record)


def parse_orders(text: str) -> tuple[OrderRecord, ...]:
    """Read the `orders` field."""
    return tuple(map(parse_order_line, text.split("\n"))) if text else ()


def parse_levels(text: str) -> tuple[LevelChange, ...]:
    """Read the `levels` field."""
    changes = []
    for part in text.split():
        level, _, total = part.partition("=")
        side, _, price = level.partition(":")
        changes.append(LevelChange(side, int(price), int(total)))
    return tuple(changes)


def parse_event(symbol: str, entry_id: str, fields: Mapping[str, str]) -> Event:
    """Read one stream entry.

    Raises:
        ValueError, KeyError: the entry is not one of ours (a poison entry).
    """
    return Event(
        symbol=symbol,
        sequence=int(entry_id.partition("-")[0]),
        type=fields["type"],
        time_us=int(fields["time"]),
        orders=parse_orders(fields["orders"]),
        fills=parse_fills(fields["fills"]),
        levels=parse_levels(fields["levels"]),
        detail=fields.get("detail", ""),
    )


def trades_of(
    taker: OrderRecord, sequence: int, time_us: int, fills: tuple[Fill, ...]
) -> list[Trade]:
    """What `fills` are as trades; `taker` is the order that the command placed."""
    return [
        Trade(
            sequence,
            index,
            fill.price_ticks,
            fill.quantity_lots,
            taker.side,
            fill.maker_number,
            taker.number,
            time_us,
        )
        for index, fill in enumerate(fills, 1)
    ]


def trade_id(symbol: str, sequence: int, index: int) -> str:
    """The public id of a trade: the event's sequence and the fill's place in it, from 1."""
    return f"{symbol}-{sequence:014d}-{index}"
