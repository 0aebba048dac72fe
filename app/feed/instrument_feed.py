"""One instrument's feed within a process: its position in the event stream, its copy of the book,
and who gets what. Pure state, no I/O, no lock: the hub calls it, one caller at a time.
"""

import logging
from collections.abc import Callable, Iterable, Mapping

from app.domain.events import Event, parse_event
from app.domain.instruments import Market
from app.feed.messages import (
    Channel,
    Channels,
    EventMessages,
    Frames,
    book_snapshot,
    gap,
    heartbeat,
    joined,
)
from app.feed.replica import SIDES, Page, Replica
from app.feed.subscribers import Subscriber

HEARTBEAT_S = 1.0
"""A subscription without other traffic for this long gets a heartbeat."""
BATCH_EVENTS = 32
"""Events whose messages travel to a subscriber as one piece: what fanning out costs per
subscriber is paid once for all of them."""

Entry = tuple[str, Mapping[str, str]]
"""A stream entry: its id and its fields."""

_ONLY_BOOK: Channels = frozenset({Channel.BOOK})
_logger = logging.getLogger(__name__)


class _Member:
    """One subscriber's part in an instrument. `flowing` is what it is sent now: all that it asked
    for, but the book only after its snapshot."""

    __slots__ = ("channels", "flowing", "sent_at", "subscriber")

    def __init__(self, subscriber: Subscriber, now: float) -> None:
        self.subscriber = subscriber
        self.channels: Channels = frozenset()
        self.flowing: Channels = frozenset()
        self.sent_at = now

    def send(self, frames: Frames, now: float) -> None:
        self.sent_at = now
        self.subscriber.offer(frames)


class InstrumentFeed:
    """Turns one stream's entries into messages for its subscribers.

    `sequence` is the last event seen. `clock` gives seconds, monotonic.
    """

    def __init__(self, market: Market, sequence: int, clock: Callable[[], float]) -> None:
        self.market = market
        self.sequence = sequence
        self.replica: Replica | None = None
        self._clock = clock
        self._members: dict[Subscriber, _Member] = {}
        self._waiting: dict[Subscriber, _Member] = {}
        self._snapshot: tuple[int, Frames] | None = None

    @property
    def is_followed(self) -> bool:
        """Whether anybody is subscribed."""
        return bool(self._members)

    def subscribe(self, subscriber: Subscriber, channels: Channels) -> None:
        """Send `channels` from here on; a book begins with a snapshot, also one asked for again."""
        member = self._members.setdefault(subscriber, _Member(subscriber, self._clock()))
        member.channels |= channels
        member.flowing |= channels - _ONLY_BOOK
        if Channel.BOOK in channels:
            member.flowing -= _ONLY_BOOK
            self._waiting[subscriber] = member
            self.replica = self.replica or Replica(self.sequence)
            self._start_books()

    def unsubscribe(self, subscriber: Subscriber, channels: Channels) -> None:
        """Send `channels` no more."""
        member = self._members.get(subscriber)
        if member is None:
            return
        member.channels -= channels
        member.flowing -= channels
        if Channel.BOOK in channels:
            self._waiting.pop(subscriber, None)
        if not member.channels:
            del self._members[subscriber]
        if not any(Channel.BOOK in member.channels for member in self._members.values()):
            self.replica = self._snapshot = None

    def take(self, entries: Iterable[Entry]) -> None:
        """Fan out stream entries; those seen already are passed over."""
        batch: list[EventMessages] = []
        for entry_id, fields in entries:
            sequence = int(entry_id.partition("-")[0])
            if sequence <= self.sequence:
                continue
            event = self._parse(entry_id, fields)
            if event is None or sequence != self.sequence + 1:
                self._send(batch)
                batch = []
                self._miss(sequence if event is None else sequence - 1)
            self._advance(event, batch)
            if self._book_is_due or len(batch) >= BATCH_EVENTS:
                self._send(batch)
                batch = []
                self._start_books()
        self._send(batch)

    def _parse(self, entry_id: str, fields: Mapping[str, str]) -> Event | None:
        try:
            event = parse_event(self.market.symbol, entry_id, fields)
            if not SIDES.issuperset(change.side for change in event.levels):
                raise ValueError(fields["levels"])  # noqa: TRY301 - one place for poison
        except (ValueError, KeyError):
            details = {"instrument": self.market.symbol, "entry": entry_id}
            _logger.exception("an entry of the event stream is not an event", extra=details)
            return None
        return event

    def _advance(self, event: Event | None, batch: list[EventMessages]) -> None:
        if event is None:
            return
        self.sequence = event.sequence
        if self.replica is not None:
            self.replica.apply(event.sequence, event.levels)
        batch.append(EventMessages(self.market, event))

    def _send(self, batch: list[EventMessages]) -> None:
        """Give each member the messages of its channels; members alike get the same bytes."""
        if not batch:
            return
        now = self._clock()
        made: dict[Channels, Frames] = {}
        for member in self._members.values():
            flowing = member.flowing
            frames = made.get(flowing)
            if frames is None:
                frames = made[flowing] = joined(batch, flowing)
            if frames.messages:
                member.send(frames, now)

    def restart_at(self, sequence: int) -> None:
        """Go on from `sequence`: events up to it, or this process's idea of them, are lost."""
        self._miss(sequence)

    def reload(self) -> None:
        """Scan the book again from its start, where a scan was under way."""
        if self.replica is not None and not self.replica.scanned:
            self.replica.load(self.sequence)

    def _miss(self, sequence: int) -> None:
        """Events between the last one seen and `sequence` will not come. Books start over."""
        missed = gap(self.market.symbol, self.sequence)
        now = self._clock()
        self.sequence = sequence
        self._snapshot = None
        for member in self._members.values():
            if Channel.BOOK in member.channels:
                self._waiting[member.subscriber] = member
            member.flowing -= _ONLY_BOOK
            if member.flowing:
                member.send(missed, now)
        if self.replica is not None:
            self.replica.load(sequence)

    def page(self, page: Page) -> None:
        """Take one page of the book's scan; see Replica.page."""
        if self.replica is not None:
            self.replica.page(page)
            self._start_books()

    @property
    def _book_is_due(self) -> bool:
        """Whether the copy is whole and somebody waits for it."""
        return bool(self._waiting) and self.replica is not None and self.replica.ready

    def _start_books(self) -> None:
        """Give a snapshot to all who wait for one, if there is one to give."""
        if not self._waiting or self.replica is None or not self.replica.ready:
            return
        now = self._clock()
        for member in self._waiting.values():
            member.flowing |= _ONLY_BOOK
            member.send(self._book(self.replica), now)
        self._waiting.clear()

    def _book(self, replica: Replica) -> Frames:
        if self._snapshot is None or self._snapshot[0] != replica.sequence:
            frames = book_snapshot(self.market, replica.sequence, replica.bids(), replica.asks())
            self._snapshot = replica.sequence, frames
        return self._snapshot[1]

    def pulse(self) -> None:
        """Send a heartbeat to whoever has heard nothing of this instrument for HEARTBEAT_S."""
        now = self._clock()
        quiet = [m for m in self._members.values() if now - m.sent_at >= HEARTBEAT_S]
        if quiet:
            frames = heartbeat(self.market.symbol, self.sequence)
            for member in quiet:
                member.send(frames, now)
