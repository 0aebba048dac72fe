"""One instrument's feed within a process: its position in the event stream, its copy of the book,
and who gets what. Pure state, no I/O, no lock: the hub calls it, one caller at a time.
"""

import logging
from collections.abc import Callable, Iterable, Mapping

from app.domain.events import Event, parse_event
from app.domain.instruments import Market
from app.domain.views import View
from app.feed.checksum import DEPTH, checksum
from app.feed.conflation import Conflation
from app.feed.members import EVERY_EVENT, ONLY_BOOK, BookOptions, Member, Resumption
from app.feed.messages import (
    EVENT_CHANNELS,
    NO_CHANNELS,
    Channel,
    Channels,
    EventMessages,
    Form,
    Frames,
    Look,
    book_delta,
    book_snapshot,
    frame,
    gap,
    heartbeat,
    joined,
    with_checksum,
)
from app.feed.quotes import TICKER_S, Quote
from app.feed.replica import SIDES, Page, Replica
from app.feed.subscribers import Subscriber

HEARTBEAT_S = 1.0
"""A subscription without other traffic for this long gets a heartbeat."""
BATCH_EVENTS = 32
"""Events whose messages travel to a subscriber as one piece: what fanning out costs per
subscriber is paid once for all of them."""
RESUME_EVENTS_MAX = 10_000
"""How far back a subscriber may resume: what the stream always holds of events that are in
Postgres."""

Entry = tuple[str, Mapping[str, str]]
"""A stream entry: its id and its fields."""

_OTHERS: Channels = EVENT_CHANNELS - ONLY_BOOK
_logger = logging.getLogger(__name__)


class InstrumentFeed:
    """Turns one stream's entries into messages for its subscribers.

    `sequence` is the last event seen. `clock` gives seconds, monotonic.
    """

    def __init__(self, market: Market, sequence: int, clock: Callable[[], float]) -> None:
        self.market = market
        self.sequence = sequence
        self.replica: Replica | None = None
        self._clock = clock
        self._members: dict[Subscriber, Member] = {}
        self._waiting: dict[Subscriber, Member] = {}
        self._conflation = Conflation()
        self._due_at: dict[int, float] = {}
        """When the next delta is due of books conflated for so many milliseconds."""
        self._checks_events = False
        self._snapshots: dict[Form, Frames] = {}
        self._snapshots_of = 0

    # --- who gets what

    @property
    def is_followed(self) -> bool:
        """Whether anybody is subscribed."""
        return bool(self._members)

    def subscribe(
        self,
        subscriber: Subscriber,
        channels: Channels,
        options: BookOptions = EVERY_EVENT,
        since: int | None = None,
    ) -> None:
        """Send `channels` from here on; a book begins with a snapshot, also one asked for again.
        With `since`, what is told event by event waits for `resume`."""
        member = self._members.setdefault(subscriber, Member(subscriber, self._clock()))
        member.channels |= channels
        member.hold(channels)
        if Channel.BOOK in channels:
            self._waiting.pop(subscriber, None)
            member.options = options
            self.replica = self.replica or Replica(self.sequence)
        if Channel.TICKER in channels:
            member.forget_ticker()
        self._arrange()
        resumed = NO_CHANNELS if since is None else channels & EVENT_CHANNELS
        member.resumption = Resumption(resumed, since or 0) if resumed else None
        self._begin(member, channels - resumed)

    def _begin(self, member: Member, channels: Channels) -> None:
        """Send `channels` from here on, the book when there is a snapshot of it."""
        member.flow(channels - ONLY_BOOK)
        if Channel.BOOK in channels:
            self._waiting[member.subscriber] = member
            self._start_books()

    def unsubscribe(self, subscriber: Subscriber, channels: Channels) -> None:
        """Send `channels` no more."""
        member = self._members.get(subscriber)
        if member is None:
            return
        member.channels -= channels
        member.hold(channels)
        if Channel.BOOK in channels:
            self._waiting.pop(subscriber, None)
        if not member.channels:
            del self._members[subscriber]
        self._arrange()

    def _arrange(self) -> None:
        """Keep what the subscriptions that there are need, and nothing else."""
        books = [m.options for m in self._members.values() if Channel.BOOK in m.channels]
        if not books:
            self.replica = None
            self._snapshots.clear()
        elif self.replica is not None and not any(each.checksum for each in books):
            self.replica.disorder()
        self._checks_events = any(each.checksum and not each.interval_ms for each in books)
        intervals = {each.interval_ms for each in books} - {0}
        now = self._clock()
        self._due_at = {each: self._due_at.get(each, now + each / 1_000) for each in intervals}
        if not intervals:
            self._conflation.clear()

    # --- events

    def take(self, entries: Iterable[Entry]) -> None:
        """Fan out stream entries; those seen already are passed over."""
        if not self._is_heard:
            self._pass_over(entries)
            return
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

    @property
    def _is_heard(self) -> bool:
        """Whether anybody is told of events; for tickers alone they need not be read."""
        return any(member.channels & EVENT_CHANNELS for member in self._members.values())

    def _pass_over(self, entries: Iterable[Entry]) -> None:
        for entry_id, _ in entries:
            self.sequence = max(self.sequence, int(entry_id.partition("-")[0]))

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
        if self._due_at:
            self._conflation.gather(event)
        proof = self._checksum() if self._checks_events else None
        batch.append(EventMessages(self.market, event, proof))

    def _checksum(self) -> int | None:
        """Of the book as it is at `sequence`; None while the copy is not that."""
        if self.replica is None or not self.replica.ready:
            return None
        return checksum(self.market, *self.replica.best(DEPTH))

    def _send(self, batch: list[EventMessages]) -> None:
        """Give each member the messages of its channels; to those alike the same bytes."""
        if not batch:
            return
        now = self._clock()
        made: dict[Look, Frames] = {}
        for member in self._members.values():
            frames = made.get(member.look)
            if frames is None:
                frames = made[member.look] = joined(batch, member.look)
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
        self._snapshots.clear()
        self._conflation.clear()
        for member in self._members.values():
            if member.flowing & _OTHERS:
                member.send(missed, now)
            if member.resumption is not None:
                self._abandon(member, member.resumption)
            if Channel.BOOK in member.channels:
                member.hold(ONLY_BOOK)
                self._waiting[member.subscriber] = member
        if self.replica is not None:
            self.replica.load(sequence)

    # --- books

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
            member.flow(ONLY_BOOK)
            member.book_sequence = self.replica.sequence
            member.send(self._book(self.replica, member.form), now)
        self._waiting.clear()

    def _book(self, replica: Replica, form: Form) -> Frames:
        if self._snapshots_of != replica.sequence:
            self._snapshots.clear()
            self._snapshots_of = replica.sequence
        if form not in self._snapshots:
            view = book_snapshot(self.market, replica.sequence, replica.bids(), replica.asks())
            self._snapshots[form] = self._proved(view, form)
        return self._snapshots[form]

    def _proved(self, view: View, form: Form) -> Frames:
        """A message of the book as it is now."""
        return frame(with_checksum(view, self._checksum()) if form.checksum else view, form)

    def _tell_conflated(self, intervals_ms: set[int], now: float) -> None:
        """Give those with these intervals what they were not told yet: the same for all of one
        interval, but those who joined since its last delta."""
        made: dict[tuple[int, Form], Frames] = {}
        paced = [member for member in self._members.values() if member.is_paced]
        for member in paced:
            previous = member.book_sequence
            if member.options.interval_ms not in intervals_ms or previous == self.sequence:
                continue
            key = previous, member.form
            if key not in made:
                made[key] = self._delta(previous, self._conflation, member.form)
            member.book_sequence = self.sequence
            member.send(made[key], now)
        told = min((member.book_sequence for member in paced), default=self.sequence)
        self._conflation.forget(told)

    def _delta(self, previous: int, changes: Conflation, form: Form) -> Frames:
        changed = changes.after(previous)
        return self._proved(book_delta(self.market, previous, self.sequence, changed), form)

    # --- subscribers that resume

    def resume_after(self, subscriber: Subscriber) -> int | None:
        """The event after which the stream is to be read for `resume`; None when the subscriber has
        arrived where the feed is, or has to begin anew."""
        member = self._members.get(subscriber)
        resumption = None if member is None else member.resumption
        if member is None or resumption is None:
            return None
        if resumption.told == self.sequence:
            self._rejoin(member, resumption)
            return None
        if self.sequence - resumption.told > RESUME_EVENTS_MAX:
            self._begin_anew(member, resumption)
            return None
        return min(resumption.told, self.sequence)

    def resume(self, subscriber: Subscriber, after: int, entries: list[Entry]) -> None:
        """Go on with a subscriber's way; `entries` are what the stream has right after `after`."""
        member = self._members.get(subscriber)
        resumption = None if member is None else member.resumption
        if member is None or resumption is None:
            return
        if after < resumption.told and entries:
            # It was told more than this process has seen: now this has, too.
            if self.sequence >= after:
                self.take(entries)
            return
        batch = self._following(resumption.told, entries)
        if batch:
            self._tell_missed(member, resumption, batch)
        else:
            self._begin_anew(member, resumption)

    def stop_resuming(self, subscriber: Subscriber) -> None:
        """What a subscriber still misses, if anything, cannot be had."""
        member = self._members.get(subscriber)
        if member is not None and member.resumption is not None:
            self._begin_anew(member, member.resumption)

    def _following(self, after: int, entries: Iterable[Entry]) -> list[EventMessages]:
        """The events right after `after`, up to the first hole."""
        found: list[EventMessages] = []
        for entry_id, fields in entries:
            event = self._parse(entry_id, fields)
            if event is None or event.sequence != after + 1:
                break
            found.append(EventMessages(self.market, event))
            after = event.sequence
        return found

    def _tell_missed(
        self, member: Member, resumption: Resumption, batch: list[EventMessages]
    ) -> None:
        frames = joined(batch, member.look_of(resumption.channels))
        if frames.messages:
            member.send(frames, self._clock())
        if member.options.interval_ms and Channel.BOOK in resumption.channels:
            for each in batch:
                resumption.book.gather(each.event)
        resumption.told = batch[-1].event.sequence

    def _rejoin(self, member: Member, resumption: Resumption) -> None:
        """It has been told all that the feed has seen."""
        member.resumption = None
        member.flow(resumption.channels)
        if not member.is_paced or Channel.BOOK not in resumption.channels:
            return
        since, member.book_sequence = resumption.since, self.sequence
        if since < self.sequence:
            member.send(self._delta(since, resumption.book, member.form), self._clock())

    def _begin_anew(self, member: Member, resumption: Resumption) -> None:
        self._abandon(member, resumption)
        self._begin(member, resumption.channels & ONLY_BOOK)

    def _abandon(self, member: Member, resumption: Resumption) -> None:
        """What it missed will not come; of a book there will be a snapshot."""
        member.resumption = None
        others = resumption.channels - ONLY_BOOK
        if others:
            member.flow(others)
            member.send(gap(self.market.symbol, resumption.told), self._clock())

    # --- time

    def pulse(self) -> None:
        """Send what is due: deltas of conflated books, and a heartbeat to whoever has heard nothing
        of this instrument for HEARTBEAT_S."""
        now = self._clock()
        due = {interval_ms for interval_ms, due_at in self._due_at.items() if due_at <= now}
        if due:
            self._tell_conflated(due, now)
            self._due_at |= {interval_ms: now + interval_ms / 1_000 for interval_ms in due}
        beats: dict[int, Frames] = {}
        for member in self._members.values():
            if now - member.sent_at >= HEARTBEAT_S and member.resumption is None:
                told = member.book_sequence if member.is_paced else self.sequence
                beat = beats[told] = beats.get(told) or heartbeat(self.market.symbol, told)
                member.send(beat, now)

    @property
    def due_at(self) -> float | None:
        """When the next delta of a conflated book is due, on the feed's clock; None without any."""
        return min(self._due_at.values(), default=None)

    # --- tickers

    @property
    def has_ticker(self) -> bool:
        """Whether anybody wants the ticker."""
        return any(Channel.TICKER in member.channels for member in self._members.values())

    def tell_ticker(self, quote: Quote) -> None:
        """Send `quote` to whoever wants it, has not got it and was sent none for TICKER_S."""
        now = self._clock()
        for member in self._members.values():
            has_it = member.ticker_version == quote.version
            is_early = member.ticker_at is not None and now - member.ticker_at < TICKER_S
            if Channel.TICKER in member.channels and not has_it and not is_early:
                member.ticker_version, member.ticker_at = quote.version, now
                member.send(quote.frames(Form(compressed=member.subscriber.compressed)), now)
