"""The instruments that this process knows; new ones are found when they are asked for."""

from app.api.problems import Problem
from app.domain.instruments import Market
from app.engine.reads import BookReads


class Markets:
    """Symbol -> Market. What is listed never changes its scales, so what was read once is kept."""

    def __init__(self, reads: BookReads) -> None:
        self._reads = reads
        self._known: dict[str, Market] = {}

    def find(self, symbol: str) -> Market | None:
        """The market of `symbol`, asking Redis for one not seen before."""
        market = self._known.get(symbol)
        if market is None:
            instrument = self._reads.instrument(symbol)
            if instrument is not None:
                market = self._known[symbol] = Market(instrument)
        return market

    def require(self, symbol: str) -> Market:
        """As `find`.

        Raises:
            Problem: 404 `instrument_not_found`.
        """
        market = self.find(symbol)
        if market is None:
            raise Problem(404, "instrument_not_found", f"no instrument {symbol[:32]!r}")
        return market
