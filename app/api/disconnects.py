"""Cancels on disconnect: what is cancelled when a WebSocket ends, however it ends. Where Redis is
away at that moment, or an instrument halted, it is tried again for a while. A process that is
killed cannot keep this promise: the cancel-after timer can.
"""

from collections.abc import Mapping, Sequence
from threading import Thread
from time import monotonic, sleep

from app.api.mass_cancels import MassCancel, MassCancels
from app.backoff import delay_s
from app.domain.refusals import Reason
from app.engine.commands import Refused
from app.engine.executor import EngineFault, EngineUnavailable
from app.logs import logger

RETRY_S_MIN = 0.5
RETRY_S_MAX = 4.0
GIVE_UP_AFTER_S = 300.0
"""Later than that nobody expects it any more; the log says which orders may still be open."""

Promises = Mapping[str, Sequence[str] | None]
"""Client -> the instruments on which its orders are to be cancelled; None: all."""


class Disconnects:
    """Keeps the promises of connections that have ended. One per process."""

    def __init__(self, cancels: MassCancels) -> None:
        self._cancels = cancels

    def keep(self, promises: Promises) -> None:
        """Cancel what was promised: before this returns, or in the background. Never raises."""
        left = [
            MassCancel(client_id, instrument, None, Reason.CANCELLED_ON_DISCONNECT)
            for client_id, instruments in promises.items()
            for instrument in ([None] if instruments is None else instruments)
        ]
        left = self._undone(left)
        if left:
            name = "cancel-on-disconnect"
            Thread(target=self._keep_trying, args=(left,), name=name, daemon=True).start()

    def _keep_trying(self, left: list[MassCancel]) -> None:
        until, failures = monotonic() + GIVE_UP_AFTER_S, 1
        while left and monotonic() < until:
            sleep(delay_s(failures, RETRY_S_MIN, RETRY_S_MAX))
            failures += 1
            left = self._undone(left)
        for wanted in left:
            where = {"client_id": wanted.client_id, "instrument": wanted.instrument}
            logger.error("orders of a lost connection may still be open", extra=where)

    def _undone(self, wanted: list[MassCancel]) -> list[MassCancel]:
        return [each for each in wanted if not self._is_done(each)]

    def _is_done(self, wanted: MassCancel) -> bool:
        """Whether nothing is left to do."""
        try:
            while not (swept := self._cancels.run(wanted)).complete:
                pass
            why = f"halted: {', '.join(swept.halted)}" if swept.halted else ""
        except (EngineUnavailable, EngineFault, Refused) as error:
            why = repr(error)
        if why:
            told = {"client_id": wanted.client_id, "why": why}
            logger.warning("a cancel on disconnect has to wait", extra=told)
        return not why
