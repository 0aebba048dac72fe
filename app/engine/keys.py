"""Every key name of Crossbook, built in this one place and explained.

All keys of an instrument begin with `{SYMBOL}:`. The braces are Redis Cluster's hash tag: they put
an instrument's keys into one slot, so that a script may touch all of them and a slot may migrate
with its book. The set of keys is fixed per instrument; none is named after an order or a client.

    {S}:book               hash    state of the book (schema, sequence, time, …), its rules, level
                                   totals `bid:<ticks>` and `ask:<ticks>` in lots, open orders of
                                   each client `open:<client>`, kill switches `killed:<client>`;
                                   and `<order number>` -> record of each order that is open, or
                                   over and not yet in Postgres
    {S}:bids, {S}:asks     zset    resting orders, best first; score -ticks / ticks,
                                   member <priority>[:<number>]
    {S}:owners             zset    `<client>|<number>` of each open order, score 0: lists, limits
                                   and mass cancel by client, oldest first
    {S}:client_order_ids   hash    `<client>|<client order id>` -> number, of open orders
    {S}:idempotency:0, :1  hash    `<client>|<key>` -> `<number>|<fingerprint>|<time, µs>`; two
                                   generations: the older is dropped when the younger is a TTL old
    {S}:events             stream  one entry for each accepted command, id <sequence>-0
    {S}:buy_stops, {S}:sell_stops
                           zset    pending stops, first to be triggered first; score stop price in
                                   ticks / its negative, member as of bids and asks
    {S}:expiries           zset    number of each open gtd order, score its expiry in µs
    {S}:timers             zset    client of each armed cancel-after timer, score when due in µs
    {S}:rebuild:…          each of these once more, while `python -m app rebuild` builds a book
"""

from typing import NamedTuple

INSTRUMENTS = "instruments"
"""Hash symbol -> JSON of the instrument: which books this Redis holds. No script reads it."""

HALTED = "persister:halted"
"""Hash symbol -> JSON: instruments whose events are no longer written down, and why."""

SWEEPER_ALIVE = "sweeper:alive"
"""String that each round of a sweeper renews, and that is gone soon after the last."""

RULES_LOCK = "rules:changing"
"""Held by whoever changes rules of an instrument, for some milliseconds; expires by itself."""

PERSISTER_GROUP = "persister"
"""Consumer group on each events stream; exists so that XINFO GROUPS and XPENDING tell the lag."""


class BookKeys(NamedTuple):
    """All keys of one instrument, in the order in which every script takes them as KEYS."""

    book: str
    bids: str
    asks: str
    owners: str
    client_order_ids: str
    idempotency_0: str
    idempotency_1: str
    events: str
    buy_stops: str
    sell_stops: str
    expiries: str
    timers: str

    @property
    def orders(self) -> str:
        """Where the orders' records are: fields of the book's own hash."""
        return self.book


def book_keys(symbol: str) -> BookKeys:
    """The keys of one instrument."""
    return _keys("{" + symbol + "}:")


def rebuild_keys(symbol: str) -> BookKeys:
    """Where a book is built before it takes the place of the present one, in the same slot."""
    return _keys("{" + symbol + "}:rebuild:")


def _keys(start: str) -> BookKeys:
    return BookKeys(
        start + "book",
        start + "bids",
        start + "asks",
        start + "owners",
        start + "client_order_ids",
        start + "idempotency:0",
        start + "idempotency:1",
        start + "events",
        start + "buy_stops",
        start + "sell_stops",
        start + "expiries",
        start + "timers",
    )


def events_key(symbol: str) -> str:
    """The stream of one instrument."""
    return "{" + symbol + "}:events"


def symbol_of(key: str) -> str:
    """The instrument that a key belongs to."""
    return key[1 : key.index("}")]
