"""The feed of one process: who listens, to what, and one reader of Redis for all of them.

State is changed under one lock, in which nothing waits: neither for Redis nor for a socket. Must
not know Flask, sockets or commands.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from threading import Event, Lock, Thread

from redis import Redis
from redis.exceptions import RedisError

from app.domain.instruments import Market
from app.engine.executor import EngineUnavailable
from app.feed import metrics
from app.feed.instrument_feed import RESUME_EVENTS_MAX, Entry, InstrumentFeed
from app.feed.members import EVERY_EVENT, BookOptions
from app.feed.messages import Channel, Channels, Frames
from app.feed.quotes import Quote, TickerOf, TickerReader
from app.feed.reader import READ_ENTRIES_MAX, StreamReader, read_after, read_sequences
from app.feed.replica import Page, Replica
from app.feed.subscribers import CLOSE_GOING_AWAY, Closing, Subscriber

SUBSCRIBERS_MAX = 1_000
"""Sockets of one process."""
SUBSCRIPTIONS_MAX = 300
"""Subscriptions (a channel of an instrument) of one socket."""
PULSE_S = 0.1
"""How often heartbeats that are due, and the end of the process, are looked for."""
PULSE_S_MIN = 0.005
"""And how often at most, also where deltas of conflated books are due one after the other."""
RESUME_READS_MAX = 4 * RESUME_EVENTS_MAX // READ_ENTRIES_MAX
"""Reads of the stream for one subscriber that resumes. A book that goes on faster than that is not
caught up with."""
NO_SINCE: Mapping[str, int] = {}

_GOING_AWAY = Closing(CLOSE_GOING_AWAY, "server is stopping")
_logger = logging.getLogger(__name__)


class HubFull(Exception):
    """No further socket is taken: there are too many, or the process is stopping."""


class TooManySubscriptions(Exception):
    """One socket wants more than SUBSCRIPTIONS_MAX."""


class Hub:
    """Joins sockets to event streams. Thread- and greenlet-safe; make one for each process.

    `client` comes from `app.feed.reader.connect`, tickers from `ticker_of`, called by one thread.
    `clock` gives seconds, monotonic. Threads start with the first socket and the first
    subscription, so a hub may be made before a fork.
    """

    def __init__(
        self,
        client: "Redis",
        ticker_of: TickerOf,
        clock: Callable[[], float] = time.monotonic,
        subscribers_max: int = SUBSCRIBERS_MAX,
        new_subscriber: Callable[[], Subscriber] = Subscriber,
    ) -> None:
        self._client = client
        self._clock = clock
        self._subscribers_max = subscribers_max
        self._new_subscriber = new_subscriber
        self._lock = Lock()
        self._subscribers: set[Subscriber] = set()
        self._feeds: dict[str, InstrumentFeed] = {}
        self._stopped = False
        self._process_stops: Callable[[], bool] = bool
        self._threads: set[str] = set()
        self._reader = StreamReader(client, self, clock)
        self._tickers = TickerReader(ticker_of, self, clock)
        self._stop_pulse = Event()

    # --- sockets

    def join(self) -> Subscriber:
        """Take in a socket.

        Raises:
            HubFull: there are `subscribers_max` already, or the hub was stopped.
        """
        with self._lock:
            if self._stopped or len(self._subscribers) >= self._subscribers_max:
                raise HubFull
            subscriber = self._new_subscriber()
            self._subscribers.add(subscriber)
        self._start("feed-pulse", self._pulse)
        metrics.CONNECTIONS.inc()
        return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """The socket is gone."""
        with self._lock:
            self._subscribers.discard(subscriber)
            for symbol in {symbol for _, symbol in subscriber.subscriptions}:
                self._remove(subscriber, frozenset(Channel), symbol)
            subscriber.subscriptions.clear()
        metrics.CONNECTIONS.dec()

    def stop(self) -> None:
        """Close every socket with 1001 and take no new one."""
        with self._lock:
            self._stopped = True
            for subscriber in self._subscribers:
                subscriber.retire(_GOING_AWAY)
        self._reader.stop()
        self._tickers.stop()
        self._stop_pulse.set()

    def stop_when(self, process_stops: Callable[[], bool]) -> None:
        """Call `stop` soon after `process_stops` has become true; asked every PULSE_S."""
        self._process_stops = process_stops

    # --- subscriptions

    def subscribe(
        self,
        subscriber: Subscriber,
        channels: Channels,
        markets: Iterable[Market],
        acknowledgement: Frames,
        options: BookOptions = EVERY_EVENT,
        since: Mapping[str, int] = NO_SINCE,
    ) -> None:
        """Send `acknowledgement`, then all that happens on `channels` of `markets` from here on; of
        those with a sequence in `since`, what happened after it first, if that can be had.

        Raises:
            EngineUnavailable: an instrument nobody follows yet, and Redis is away.
            TooManySubscriptions: nothing was subscribed.
        """
        wanted = {market.symbol: market for market in markets}
        sequences = self._sequences(wanted)
        with self._lock:
            pairs = {(channel, symbol) for channel in channels for symbol in wanted}
            if len(subscriber.subscriptions | pairs) > SUBSCRIPTIONS_MAX:
                raise TooManySubscriptions
            subscriber.subscriptions |= pairs
            subscriber.offer(acknowledgement)
            for symbol, market in wanted.items():
                feed = self._feed(market, sequences[symbol])
                feed.subscribe(subscriber, channels, options, since.get(symbol))
        self._start_threads(channels)
        for symbol in since:
            self._resume(subscriber, symbol)

    def _start_threads(self, channels: Channels) -> None:
        self._start("feed-reader", self._reader.run)
        self._reader.wake()
        if Channel.TICKER in channels:
            self._start("feed-tickers", self._tickers.run)
            self._tickers.wake()

    def _resume(self, subscriber: Subscriber, symbol: str) -> None:
        """Tell a subscriber what it missed, page by page and no faster than it reads, until it is
        where the feed is; or where that cannot be, let it begin anew."""
        feed = self._feeds[symbol]
        try:
            for _ in range(RESUME_READS_MAX):
                subscriber.wait_for_room()
                with self._lock:
                    after = feed.resume_after(subscriber)
                if after is None or subscriber.closing is not None:
                    return
                entries = read_after(self._client, symbol, after)
                with self._lock:
                    feed.resume(subscriber, after, entries)
        except (RedisError, OSError) as error:
            details = {"instrument": symbol, "error": repr(error)}
            _logger.warning("what a subscriber missed cannot be read", extra=details)
        finally:
            with self._lock:
                feed.stop_resuming(subscriber)

    def _sequences(self, symbols: Iterable[str]) -> dict[str, int]:
        """Where books are now: where a feed that begins will begin. Without events: at 0."""
        try:
            found = read_sequences(self._client, tuple(symbols))
        except (RedisError, OSError) as error:
            raise EngineUnavailable(str(error)) from error
        return {symbol: sequence or 0 for symbol, sequence in found.items()}

    def _feed(self, market: Market, sequence: int) -> InstrumentFeed:
        feed = self._feeds.get(market.symbol)
        if feed is None:
            feed = self._feeds[market.symbol] = InstrumentFeed(market, sequence, self._clock)
        return feed

    def unsubscribe(
        self,
        subscriber: Subscriber,
        channels: Channels,
        symbols: Iterable[str],
        acknowledgement: Frames,
    ) -> None:
        """Send nothing more of `channels` of `symbols`, then `acknowledgement`."""
        with self._lock:
            for symbol in symbols:
                subscriber.subscriptions -= {(channel, symbol) for channel in channels}
                self._remove(subscriber, channels, symbol)
            subscriber.offer(acknowledgement)

    def _remove(self, subscriber: Subscriber, channels: Channels, symbol: str) -> None:
        feed = self._feeds.get(symbol)
        if feed is None:
            return
        feed.unsubscribe(subscriber, channels)
        if not feed.is_followed:
            del self._feeds[symbol]
            metrics.LAG_EVENTS.labels(symbol).set(0)

    # --- what the reader needs and finds

    def positions(self) -> dict[str, int]:
        """The last sequence seen of each instrument that is followed."""
        with self._lock:
            return {symbol: feed.sequence for symbol, feed in self._feeds.items()}

    def loads(self) -> dict[str, Replica]:
        """The copies of books that have still to be read, by instrument."""
        with self._lock:
            replicas = {symbol: feed.replica for symbol, feed in self._feeds.items()}
        return {symbol: copy for symbol, copy in replicas.items() if copy and not copy.scanned}

    def page(self, symbol: str, replica: Replica, page: Page) -> None:
        """Take one page of a book's scan, unless the copy it is for was given up meanwhile."""
        with self._lock:
            feed = self._feeds.get(symbol)
            if feed is not None and feed.replica is replica:
                feed.page(page)

    def deliver(self, symbol: str, after: int, entries: Iterable[Entry]) -> None:
        """Fan out what the stream of one instrument has after sequence `after`."""
        with self._lock:
            feed = self._feeds.get(symbol)
            # A feed that began anew while the stream was read may stand before `after`.
            if feed is not None and feed.sequence >= after:
                feed.take(entries)

    def ticker_sequences(self) -> dict[str, int]:
        """The last sequence seen of each instrument whose ticker is wanted."""
        with self._lock:
            return {s: feed.sequence for s, feed in self._feeds.items() if feed.has_ticker}

    def tell_ticker(self, symbol: str, quote: Quote) -> None:
        """Fan out the ticker of one instrument."""
        with self._lock:
            feed = self._feeds.get(symbol)
            if feed is not None:
                feed.tell_ticker(quote)

    def restart(self, symbol: str, sequence: int) -> None:
        """Go on from the event after `sequence`: the stream has nothing that continues the feed."""
        with self._lock:
            feed = self._feeds.get(symbol)
            if feed is not None:
                details = {"instrument": symbol, "seen": feed.sequence, "sequence": sequence}
                _logger.warning("the feed cannot be continued", extra=details)
                feed.restart_at(sequence)

    def reload(self) -> None:
        """Begin unfinished scans again: a cursor is good for the server that gave it only."""
        with self._lock:
            for feed in self._feeds.values():
                feed.reload()

    # --- threads

    def _start(self, name: str, target: Callable[[], None]) -> None:
        """Run `target` in a thread, the first time that it is asked for."""
        with self._lock:
            if name in self._threads:
                return
            self._threads.add(name)
        Thread(target=target, name=name, daemon=True).start()

    def _pulse(self) -> None:
        pause_s = PULSE_S
        while not self._stop_pulse.wait(pause_s):
            if self._process_stops():
                self.stop()
            pause_s = self.pulse()

    def pulse(self) -> float:
        """Send what is due; seconds until something may be due again."""
        with self._lock:
            for feed in self._feeds.values():
                feed.pulse()
            dues = [feed.due_at for feed in self._feeds.values() if feed.due_at is not None]
        due_s = min(dues, default=math.inf) - self._clock()
        return max(PULSE_S_MIN, min(PULSE_S, due_s))
