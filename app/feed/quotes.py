"""Tickers on their way to sockets: each instrument's is asked for at most once a second in a
process, and told when something in it changed.

Where a ticker comes from is not known here; it may take its time, and may fail: then it is asked
for again.
"""

import logging
from collections.abc import Callable
from threading import Event
from typing import Protocol

from app.domain.views import View
from app.feed.messages import Form, Frames, frame, ticker

TICKER_S = 1.0
"""No instrument's ticker is asked for, or told to one subscriber, more often."""
QUIET_S = 10.0
"""How often the ticker of an instrument is asked for in which nothing happens: its 24 hours move
on all the same. For so long after an event it is asked for each TICKER_S, as what is written down
of the event may come later."""
TURN_S = 0.1
"""How often it is looked whom to tell, while anybody wants a ticker."""

_STAMPS = ("sequence", "timestamp")
"""Fields that say when a ticker is from: another time alone is no news."""
_logger = logging.getLogger(__name__)

TickerOf = Callable[[str], View]
"""Gives the Ticker of a symbol; may raise anything."""


class Quote:
    """The last known ticker of one instrument. `version` grows with each change; 0: none known."""

    def __init__(self) -> None:
        self.version = 0
        self._view: View = {}
        self._frames: dict[Form, Frames] = {}

    def update(self, view: View) -> None:
        """Take the ticker as it is now."""
        is_news = _numbers(view) != _numbers(self._view)
        if is_news:
            self.version += 1
        # Also without news: who subscribes now is told the latest time.
        self._view = view
        self._frames.clear()

    def frames(self, form: Form) -> Frames:
        """The message, made once for all of one form."""
        if form not in self._frames:
            self._frames[form] = frame(ticker(self._view), form)
        return self._frames[form]


def _numbers(view: View) -> View:
    return {name: value for name, value in view.items() if name not in _STAMPS}


class Audience(Protocol):
    """What is asked of the hub, and told it. See `app.feed.hub.Hub`."""

    def ticker_sequences(self) -> dict[str, int]: ...
    def tell_ticker(self, symbol: str, quote: Quote) -> None: ...


class _Asked:
    """One instrument: its quote, when it was asked for, and when something happened last."""

    def __init__(self) -> None:
        self.quote = Quote()
        self.asked_at: float | None = None
        self.sequence = -1
        self.moved_at = 0.0
        self.fails = False

    def is_due(self, sequence: int, now: float) -> bool:
        """Whether to ask now; `sequence` is the instrument's last event."""
        if sequence != self.sequence:
            self.sequence, self.moved_at = sequence, now
        if self.asked_at is None:
            return True
        pause_s = TICKER_S if self.fails or now - self.moved_at <= QUIET_S else QUIET_S
        return now - self.asked_at >= pause_s


class TickerReader:
    """Asks for tickers and tells `hub`, until stopped. `clock` gives seconds, monotonic."""

    def __init__(self, ticker_of: TickerOf, hub: Audience, clock: Callable[[], float]) -> None:
        self._ticker_of = ticker_of
        self._hub = hub
        self._clock = clock
        self._asked: dict[str, _Asked] = {}
        self._wanted = Event()
        self._stopped = False

    def wake(self) -> None:
        """Somebody wants a ticker now."""
        self._wanted.set()

    def stop(self) -> None:
        """End `run` soon."""
        self._stopped = True
        self._wanted.set()

    def run(self) -> None:
        """Ask and tell until `stop`."""
        while not self._stopped:
            self._wanted.clear()
            is_heard = self.turn()
            self._wanted.wait(TURN_S if is_heard else None)

    def turn(self) -> bool:
        """Ask for what is due, tell what is new; False where nobody listens."""
        sequences = self._hub.ticker_sequences()
        self._asked = {symbol: self._asked.get(symbol) or _Asked() for symbol in sequences}
        for symbol, asked in self._asked.items():
            if asked.is_due(sequences[symbol], self._clock()):
                self._ask(symbol, asked)
            if asked.quote.version:
                self._hub.tell_ticker(symbol, asked.quote)
        return bool(sequences)

    def _ask(self, symbol: str, asked: _Asked) -> None:
        asked.asked_at = self._clock()
        try:
            asked.quote.update(self._ticker_of(symbol))
            asked.fails = False
        except Exception as error:  # noqa: BLE001 - whatever it is, sockets wait for the next one
            if not asked.fails:  # once, not each second
                details = {"instrument": symbol, "error": repr(error)}
                _logger.warning("a ticker cannot be had", extra=details)
            asked.fails = True
