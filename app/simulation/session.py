"""One simulation from beginning to end: keeps time, sends what the traders want, waits where the
server or an instrument is away, and takes all orders back at the end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final, TypeVar

from app.backoff import delay_s
from app.simulation import venue
from app.simulation.characters import character_of
from app.simulation.client import ApiClient, ServerAway
from app.simulation.tally import Tally
from app.simulation.traders import Traders, maker_ids, taker_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from threading import Event

    from app.simulation.options import Options
    from app.simulation.orders import Intent

    Say = Callable[[str], None]
    Sending = tuple[Traders, Intent]

ROUND_S: Final = 0.05
"""What comes up in so long is sent together."""
LATE_S_MAX: Final = 1.0
"""A server that cannot follow is let off what is older."""
BATCH_ITEMS: Final = 500
REPORT_EVERY_S: Final = 10.0
FIRST_ANSWER_S: Final = 30.0
"""For which a server is waited for that never answered."""
GOODBYE_S: Final = 15.0
"""For which a server that is away is waited for, to take the orders back."""
RETRY_S_MIN: Final = 0.2
RETRY_S_MAX: Final = 5.0

T = TypeVar("T")


class Stopped(Exception):
    """Somebody asked for the end before there was a beginning."""


@dataclass(slots=True)
class Pause:
    """Of one instrument, until a moment of the monotonic clock."""

    until_s: float
    failures: int = 0
    is_told: bool = False


class Session:
    """Use once: `run`."""

    def __init__(self, options: Options, stop: Event, say: Say) -> None:
        self._options = options
        self._stop = stop
        self._say = say
        self._client = ApiClient(options.url)
        self._client_ids = [*maker_ids(options.seed), *taker_ids(options.seed)]
        self._traders: list[Traders] = []
        self._paused: dict[Traders, Pause] = {}
        self._tally = Tally()

    def run(self) -> bool:
        """Until the time is over or `stop` is set; whether no order was left behind.

        Raises:
            ServerAway: it never answered. ServerRefuses: it will not have this simulation.
        """
        try:
            self._begin()
        except Stopped:
            return True
        try:
            self._trade()
        finally:
            is_clean = self._leave()
        return is_clean

    # Beginning and end

    def _begin(self) -> None:
        options = self._options
        markets = self._patiently(lambda: venue.markets(self._client, options.symbols))
        # Of an earlier run that was killed.
        self._patiently(lambda: venue.cancel_all(self._client, self._client_ids))
        shares = {market.symbol: character_of(market.symbol).share for market in markets}
        for market in markets:
            rate_per_s = options.rate_per_s * shares[market.symbol] / sum(shares.values())
            self._traders.append(Traders(market, rate_per_s, options.seed))
        for traders in self._traders:
            self._look(traders)
        self._say(
            f"simulating on {options.url}: {', '.join(shares)}; about {options.rate_per_s:g} "
            f"orders a second, seed {options.seed}; Ctrl-C ends it and takes its orders back"
        )

    def _patiently(self, ask: Callable[[], T]) -> T:
        """What `ask` answers once the server does.

        Raises:
            Stopped. ServerAway: it does not for FIRST_ANSWER_S.
        """
        deadline = time.monotonic() + FIRST_ANSWER_S
        for failures in count(1):
            try:
                return ask()
            except ServerAway as error:
                if time.monotonic() > deadline:
                    raise ServerAway(f"{self._options.url} does not answer: {error}") from error
                if failures == 1:
                    self._say(f"{self._options.url} does not answer yet ({error}): waiting")
            if self._stop.wait(delay_s(failures, RETRY_S_MIN, RETRY_S_MAX)):
                raise Stopped
        raise AssertionError("count() never ends")

    def _leave(self) -> bool:
        """Takes all orders back; whether that was possible."""
        deadline = time.monotonic() + GOODBYE_S
        for failures in count(1):
            try:
                cleared = venue.cancel_all(self._client, self._client_ids)
            except ServerAway as error:
                if time.monotonic() > deadline:
                    self._say(f"the server is away ({error}): open orders stay in its books")
                    return False
                time.sleep(delay_s(failures, RETRY_S_MIN, RETRY_S_MAX))
            else:
                self._say(f"the end: {self._tally}; {cleared.cancelled:,} open ones taken back")
                if cleared.halted:
                    self._say(f"no cancels are taken, orders stay: {', '.join(cleared.halted)}")
                return not cleared.halted
        raise AssertionError("count() never ends")

    # Trading

    def _trade(self) -> None:
        """Round after round. Late rounds are made up for, up to LATE_S_MAX."""
        begun_s = due_s = reported_s = time.monotonic()
        end_s = begun_s + (self._options.seconds or float("inf"))
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            now_s = time.monotonic()
            if now_s >= end_s:
                return
            due_s = max(due_s, now_s - LATE_S_MAX) + ROUND_S
            try:
                self._round()
            except ServerAway as error:
                self._come_back(error)
            if now_s - reported_s >= REPORT_EVERY_S:
                self._report(now_s - reported_s)
                reported_s = now_s

    def _round(self) -> None:
        self._resume_paused()
        active = [traders for traders in self._traders if traders not in self._paused]
        self._send([(each, intent) for each in active for intent in each.advance(ROUND_S)])
        self._pause_troubled(active)

    def _send(self, sendings: list[Sending]) -> None:
        for start in range(0, len(sendings), BATCH_ITEMS):
            part = sendings[start : start + BATCH_ITEMS]
            results = self._client.batch([intent.item for _, intent in part])
            for (traders, intent), (status, body) in zip(part, results, strict=True):
                traders.answered(intent, status, body)
                self._tally.count(intent, status, body)

    def _report(self, seconds: float) -> None:
        resting = sum(traders.open_orders for traders in self._traders)
        self._say(f"{self._tally.since_last(seconds)}; {resting:,} open")

    # Interruptions

    def _come_back(self, error: ServerAway) -> None:
        """Waits for a server that is away; then every instrument is begun anew."""
        self._say(f"the server is away ({error}): waiting")
        away_since_s = time.monotonic()
        for failures in count(1):
            if self._stop.wait(delay_s(failures, RETRY_S_MIN, RETRY_S_MAX)):
                return
            try:
                self._client.get("/instruments")
            except ServerAway:
                continue
            break
        now_s = time.monotonic()
        self._say(f"the server is back after {now_s - away_since_s:.1f} s")
        for traders in self._traders:
            self._paused.setdefault(traders, Pause(now_s))

    def _pause_troubled(self, among: Iterable[Traders]) -> None:
        """Those whose instrument takes no orders now."""
        troubled = [traders for traders in among if traders.trouble]
        for traders in troubled:
            self._paused[traders] = Pause(time.monotonic() + RETRY_S_MIN, is_told=True)
        if troubled:
            why = ", ".join(sorted({str(traders.trouble) for traders in troubled}))
            self._say(f"no orders are taken ({why}), waiting: {_symbols(troubled)}")

    def _resume_paused(self) -> None:
        """Those whose time has come; who is refused again waits longer."""
        now_s = time.monotonic()
        due = [(each, pause) for each, pause in self._paused.items() if pause.until_s <= now_s]
        for traders, _ in due:
            self._look(traders)
            self._send([(traders, intent) for intent in traders.resume()])
        for traders, pause in due:
            if traders.trouble is None:
                del self._paused[traders]
                continue
            pause.failures += 1
            pause.until_s = now_s + delay_s(pause.failures, RETRY_S_MIN, RETRY_S_MAX)
        again = [each for each, pause in due if pause.is_told and each not in self._paused]
        if again:
            self._say(f"orders are taken again: {_symbols(again)}")

    def _look(self, traders: Traders) -> None:
        """Where the price is now."""
        ticks = venue.price_ticks(self._client, traders.market)
        if ticks is not None:
            traders.begin_at(ticks)


def _symbols(traders: Iterable[Traders]) -> str:
    return ", ".join(each.market.symbol for each in traders)
