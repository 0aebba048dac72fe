"""Cancelling many orders at once: all of a client, of an instrument, of a side. Step by step, so
that others trade in between. Must not know why, or who asked.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from app.api.outcomes import log
from app.domain.orders import order_id
from app.domain.refusals import Reason, Refusal
from app.engine.book import Books
from app.engine.commands import Refused
from app.engine.reads import BookReads

MAX_CANCELLED_IDS = 10_000
"""After so many orders a mass cancel ends, and says that it is to be continued. Looked at before
each step, so its last one may pass it a little.
"""

Owner = tuple[str, str]
"""Symbol and client: whose open orders, and where."""


class MassCancel(NamedTuple):
    """What to cancel: of a client, on an instrument, on a side; None stands for all."""

    client_id: str | None
    instrument: str | None
    side: str | None
    reason: Reason
    request_id: str = ""


class Swept(msgspec.Struct):
    """What a mass cancel did. `halted` are instruments that it had to leave as they were;
    `complete` says that on the others nothing is left.
    """

    cancelled: list[str]
    complete: bool
    halted: list[str]


def _stands_still(refusal: Refusal, wanted: MassCancel) -> bool:
    """Whether the book stands still and the others can be swept nevertheless: an operator halted
    it, or it went back in time, which whoever asked for it alone has to hear.
    """
    is_behind = refusal == Refusal.BOOK_BEHIND and wanted.instrument is None
    return is_behind or refusal == Refusal.INSTRUMENT_HALTED


class MassCancels:
    """Carries out mass cancels. One per process."""

    def __init__(self, books: Books, reads: BookReads) -> None:
        self._books = books
        self._reads = reads

    def run(self, wanted: MassCancel) -> Swept:
        """Cancel up to about MAX_CANCELLED_IDS orders: instrument by instrument, client by client,
        oldest first.

        Raises:
            Refused: a book is missing. EngineUnavailable: some orders may be cancelled; the same
                call again cancels the others.
        """
        swept = Swept([], complete=True, halted=[])
        for symbol, client_id in self._owners(wanted):
            try:
                self._cancel(symbol, client_id, wanted, swept)
            except Refused as error:
                if not _stands_still(error.refusal, wanted):
                    raise
                swept.halted.append(symbol)
            if not swept.complete or swept.halted == [wanted.instrument]:
                break
        return swept

    def _owners(self, wanted: MassCancel) -> Iterable[Owner]:
        """Who has open orders where, in the order in which they are cancelled."""
        if wanted.instrument is None:
            assert wanted.client_id is not None
            symbols = [instrument.symbol for instrument in self._reads.instruments()]
            owned = self._reads.owned(symbols, wanted.client_id)
            return [(symbol, wanted.client_id) for symbol in owned]
        if wanted.client_id is None:
            return self._clients(wanted.instrument)
        return [(wanted.instrument, wanted.client_id)]

    def _clients(self, symbol: str) -> Iterator[Owner]:
        client_id = self._reads.next_owner(symbol, None)
        while client_id is not None:
            yield symbol, client_id
            client_id = self._reads.next_owner(symbol, client_id)

    def _cancel(self, symbol: str, client_id: str, wanted: MassCancel, swept: Swept) -> None:
        after: int | None = 0
        while after is not None:
            if len(swept.cancelled) >= MAX_CANCELLED_IDS:
                swept.complete = False
                return
            step = self._books.mass_cancel(
                symbol, client_id, wanted.side or "", wanted.reason, after
            )
            ids = [order_id(symbol, order.number) for order in step.orders]
            swept.cancelled += ids
            after = step.continue_after
            if ids:
                told = {"client_id": client_id, "reason": wanted.reason, "order_ids": ids}
                log("orders cancelled", wanted.request_id, **told)
