"""What `python -m app simulate` does: a session that a signal ends."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Final

from app.simulation.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.simulation.options import Options

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def run(options: Options, say: Callable[[str], None]) -> bool:
    """Whether no order was left behind.

    Raises:
        ServerAway, ServerRefuses: the text is one line for the person at the terminal.
    """
    try:
        with stopped_by_signals() as stop:
            return Session(options, stop, say).run()
    except KeyboardInterrupt:
        say("stopped at once: open orders stay in the books")
        return False


@contextmanager
def stopped_by_signals() -> Iterator[Event]:
    """An event that SIGINT and SIGTERM set; a second one does what it does otherwise."""
    stop = Event()
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(*_: object) -> None:
        stop.set()
        restore()

    for number in STOP_SIGNALS:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()
