"""Metrics of order entry, and the page that Prometheus scrapes: right over all worker processes.

With PROMETHEUS_MULTIPROC_DIR set (the server sets it) counts are kept in files that every process
writes for itself; a scrape adds them up, whichever worker answers it.
"""

import os
from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.engine.executor import EngineUnavailable
from app.engine.reads import BookReads
from app.persistence.queries import DatabaseUnavailable, Queries

LATENCY_BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip

ORDERS_RECEIVED = Counter("orders_received", "Orders that arrived, whatever became of them")
ORDERS_MATCHED = Counter("orders_matched", "Orders that traded the moment they arrived")
ORDERS_REJECTED = Counter("orders_rejected", "Orders refused, by problem code", ["code"])
ORDER_LATENCY = Histogram(
    "order_latency_seconds", "From an order's arrival to its answer", buckets=LATENCY_BUCKETS_S
)


class StoreCollector(Collector):
    """Whether Postgres answers at the moment of the scrape."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge."""
        up = GaugeMetricFamily("crossbook_postgres_up", "1 if Postgres answered this scrape")
        try:
            self._queries.ping()
            up.add_metric([], 1)
        except DatabaseUnavailable:
            up.add_metric([], 0)
        yield up


class BookCollector(Collector):
    """What the books say at the moment of the scrape: their depth and the persister's lag."""

    def __init__(self, reads: BookReads) -> None:
        self._reads = reads

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Depth for each instrument and side, lag for each instrument, and what is wrong."""
        up = GaugeMetricFamily("crossbook_redis_up", "1 if Redis answered this scrape")
        depth = GaugeMetricFamily(
            "current_orderbook_depth", "Resting orders", labels=["instrument", "side"]
        )
        lag = GaugeMetricFamily(
            "crossbook_persister_lag_events",
            "Events accepted but not yet committed to Postgres",
            labels=["instrument"],
        )
        halted = GaugeMetricFamily(
            "crossbook_instrument_halted",
            "1 for each instrument that takes no orders because something is wrong, and why",
            labels=["instrument", "code"],
        )
        crowded = GaugeMetricFamily(
            "crossbook_instrument_crowded",
            "1 for each instrument that takes no orders because memory is short",
            labels=["instrument"],
        )
        swept = GaugeMetricFamily(
            "crossbook_sweeper_up", "1 if timers and expiries are looked after"
        )
        try:
            symbols = [instrument.symbol for instrument in self._reads.instruments()]
            for symbol, (bids, asks) in self._reads.depths(symbols).items():
                depth.add_metric([symbol, "bid"], bids)
                depth.add_metric([symbol, "ask"], asks)
            for symbol, events in self._reads.lags(symbols).items():
                lag.add_metric([symbol], events)
            for symbol, halt in self._reads.halted().items():
                halted.add_metric([symbol, str(halt.get("code"))], 1)
            for symbol in self._reads.crowded(symbols):
                crowded.add_metric([symbol], 1)
            swept.add_metric([], int(self._reads.is_swept()))
            up.add_metric([], 1)
        except EngineUnavailable:
            up.add_metric([], 0)
        yield from (up, depth, lag, halted, crowded, swept)


def page(reads: BookReads, queries: Queries) -> bytes:
    """The exposition text of all metrics of all processes."""
    registry = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(REGISTRY)
    registry.register(BookCollector(reads))
    registry.register(StoreCollector(queries))
    return generate_latest(registry)
