"""The instruments that this process knows; new ones are found when they are asked for."""

from app.api.problems import Problem, refused
from app.domain.instruments import Market
from app.domain.orders import split_order_id
from app.domain.refusals import Refusal
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

    def locate(self, order_id: str) -> tuple[Market, int]:
        """The market and number that an order id names.

        Raises:
            Problem: 404 `order_not_found` where it cannot be the id of an order.
        """
        parts = split_order_id(order_id)
        market = self.find(parts[0]) if parts else None
        if parts is None or market is None:
            raise refused(Refusal.ORDER_NOT_FOUND)
        return market, parts[1]
