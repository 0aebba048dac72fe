"""Metrics of order entry, and the page that Prometheus scrapes: right over all worker processes.

With PROMETHEUS_MULTIPROC_DIR set (the server sets it) counts are kept in files that every process
writes for itself; a scrape adds them up, whichever worker answers it.
"""

import os
from collections.abc import Iterator, Mapping
from time import perf_counter

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
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
for awaited in ("internal_error", "outcome_unknown", "too_late"):
    # Alerts ask whether these grow: before their first one, there must have been a zero.
    ORDERS_REJECTED.labels(awaited)
ORDER_LATENCY = Histogram(
    "order_latency_seconds", "From an order's arrival to its answer", buckets=LATENCY_BUCKETS_S
)


class StoreCollector(Collector):
    """Whether Postgres answers at the moment of the scrape."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def collect(self) -> Iterator[Metric]:
        """Whether, and after how long."""
        started = perf_counter()
        try:
            self._queries.ping()
            up = 1
        except DatabaseUnavailable:
            up = 0
        seconds = perf_counter() - started
        yield _gauge("crossbook_postgres_up", "1 if Postgres answered this scrape", up)
        told = "How long Postgres took to answer this scrape, or not to"
        yield _gauge("crossbook_postgres_ping_seconds", told, seconds)


class BookCollector(Collector):
    """What Redis and its books say at the moment of the scrape."""

    def __init__(self, reads: BookReads) -> None:
        self._reads = reads

    def collect(self) -> Iterator[Metric]:
        """Nothing but that Redis is away, where it is."""
        try:
            found = [*self._of_redis(), *self._of_books()]
            up = 1
        except EngineUnavailable:
            found, up = [], 0
        yield _gauge("crossbook_redis_up", "1 if Redis answered this scrape", up)
        yield from found

    def _of_redis(self) -> Iterator[Metric]:
        started = perf_counter()
        server = self._reads.server()
        seconds = perf_counter() - started
        yield _gauge("crossbook_redis_ping_seconds", "How long Redis took to answer", seconds)
        writable = int(server.why_read_only is None)
        yield _gauge("crossbook_redis_writable", "1 if Redis takes writes", writable)
        used, most = server.memory_used_bytes, server.memory_max_bytes
        yield _gauge("crossbook_redis_memory_used_bytes", "Memory that Redis has used", used)
        yield _gauge("crossbook_redis_memory_max_bytes", "Its maxmemory; 0 is no limit", most)
        file_bytes = server.file_bytes
        yield _gauge("crossbook_redis_file_bytes", "Size of its append-only file", file_bytes)
        yield _gauge("crossbook_redis_clients", "Connections to Redis", server.clients)
        yield CounterMetricFamily(
            "crossbook_redis_commands", "Commands that Redis has carried out", server.commands
        )

    def _of_books(self) -> Iterator[Metric]:
        reads = self._reads
        symbols = [instrument.symbol for instrument in reads.instruments()]
        yield _gauge("crossbook_instruments_listed", "Listed instruments", len(symbols))
        missing = len(reads.without_book(symbols))
        yield _gauge("crossbook_books_missing", "Listed instruments without a book", missing)
        yield self._depth(symbols)
        yield self._accepted(symbols)
        yield _per_instrument(
            "crossbook_persister_lag_events",
            "Events accepted but not yet committed to Postgres",
            reads.lags(symbols),
        )
        yield _per_instrument(
            "crossbook_stream_events",
            "Events that the stream holds, committed or not",
            reads.stream_lengths(symbols),
        )
        yield self._halted()
        yield _per_instrument(
            "crossbook_instrument_crowded",
            "1 for each instrument that takes no orders because memory is short",
            dict.fromkeys(reads.crowded(symbols), 1),
        )
        swept = int(reads.is_swept())
        yield _gauge("crossbook_sweeper_up", "1 if timers and expiries are looked after", swept)

    def _depth(self, symbols: list[str]) -> Metric:
        labels = ["instrument", "side"]
        family = GaugeMetricFamily("current_orderbook_depth", "Resting orders", labels=labels)
        for symbol, (bids, asks) in self._reads.depths(symbols).items():
            family.add_metric([symbol, "bid"], bids)
            family.add_metric([symbol, "ask"], asks)
        return family

    def _accepted(self, symbols: list[str]) -> Metric:
        told = "Commands that each book has accepted: its sequence"
        family = CounterMetricFamily("crossbook_commands_accepted", told, labels=["instrument"])
        for symbol, sequence in self._reads.sequences(symbols).items():
            family.add_metric([symbol], sequence)
        return family

    def _halted(self) -> Metric:
        family = GaugeMetricFamily(
            "crossbook_instrument_halted",
            "1 for each instrument that takes no orders because something is wrong, and why",
            labels=["instrument", "code"],
        )
        for symbol, halt in self._reads.halted().items():
            family.add_metric([symbol, str(halt.get("code"))], 1)
        return family


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value)


def _per_instrument(name: str, documentation: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=["instrument"])
    for symbol, value in values.items():
        family.add_metric([symbol], value)
    return family


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
