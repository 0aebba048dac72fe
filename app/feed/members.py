"""One subscriber's part in one instrument's feed: what it asked for, what it is sent now, and how
far it was told. Pure; the feed of the instrument changes it.
"""

from functools import lru_cache
from typing import NamedTuple

from app.feed.conflation import Conflation
from app.feed.messages import EVENT_CHANNELS, NO_CHANNELS, Channel, Channels, Form, Frames, Look
from app.feed.subscribers import Subscriber

ONLY_BOOK: Channels = frozenset({Channel.BOOK})


class BookOptions(NamedTuple):
    """How a subscriber wants the book: one delta for `interval_ms`, 0 for one of each event; with
    the checksum or without."""

    interval_ms: int = 0
    checksum: bool = False


EVERY_EVENT = BookOptions()


@lru_cache(maxsize=64)
def _look(channels: Channels, form: Form) -> Look:
    """One object for those alike, found in a dictionary without a comparison."""
    return Look(channels, form)


class Resumption:
    """A subscriber on the way from where it was to where the feed is: it was told `channels` up to
    the event `told`. A conflated book is gathered on the way and told at its end."""

    __slots__ = ("book", "channels", "since", "told")

    def __init__(self, channels: Channels, since: int) -> None:
        self.channels = channels
        self.since = self.told = since
        self.book = Conflation()


class Member:
    """`flowing` is what it is sent now: all that it asked for, but the book only after its
    snapshot, and what it is still resuming only after that."""

    __slots__ = (
        "book_sequence",
        "channels",
        "flowing",
        "look",
        "options",
        "resumption",
        "sent_at",
        "subscriber",
        "ticker_at",
        "ticker_version",
    )

    def __init__(self, subscriber: Subscriber, now: float) -> None:
        self.subscriber = subscriber
        self.channels = self.flowing = NO_CHANNELS
        self.options = EVERY_EVENT
        self.resumption: Resumption | None = None
        self.book_sequence = 0
        """Of the last message of a conflated book."""
        self.sent_at = now
        self.ticker_at: float | None = None
        """When it was sent the last ticker, on the feed's clock."""
        self.ticker_version = 0
        """Which one that was; see Quote."""
        self._dress()

    def send(self, frames: Frames, now: float) -> None:
        """Queue `frames`."""
        self.sent_at = now
        self.subscriber.offer(frames)

    def flow(self, channels: Channels) -> None:
        """Send `channels` from here on."""
        self.flowing |= channels
        self._dress()

    def hold(self, channels: Channels) -> None:
        """Send `channels` no more, for now."""
        self.flowing -= channels
        self._dress()

    def forget_ticker(self) -> None:
        """It asked for the ticker, perhaps again: the next one is for it."""
        self.ticker_at, self.ticker_version = None, 0

    def _dress(self) -> None:
        self.look = self.look_of(self.flowing)

    def look_of(self, channels: Channels) -> Look:
        """How it is to be sent `channels` event by event: a conflated book is not."""
        shown = channels & EVENT_CHANNELS
        if self.options.interval_ms:
            shown -= ONLY_BOOK
        form = self.form if Channel.BOOK in shown else self.form._replace(checksum=False)
        return _look(shown, form)

    @property
    def form(self) -> Form:
        """How its messages are written."""
        return Form(self.options.checksum, self.subscriber.compressed)

    @property
    def is_paced(self) -> bool:
        """Whether a conflated book is sent to it now."""
        return bool(self.options.interval_ms) and Channel.BOOK in self.flowing
