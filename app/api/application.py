"""Puts one process of the API together: connections, engine, queries, feed, routes."""

import os
from functools import partial

from flask import Flask
from redis import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.api import dialects, problems
from app.api.admin import admin_blueprint
from app.api.admin_snapshots import Snapshots
from app.api.analytics import analytics_blueprint
from app.api.batches import Batches
from app.api.candles import Candles, candles_blueprint
from app.api.client_orders import client_orders_blueprint
from app.api.commands import OrderEntry, answering
from app.api.disconnects import Disconnects
from app.api.flask_app import LeanFlask
from app.api.health import health_blueprint
from app.api.history import History
from app.api.http import RequestIds
from app.api.listing import Listing
from app.api.market import market_blueprint
from app.api.markets import Markets
from app.api.mass_cancels import MassCancels
from app.api.orders import orders_blueprint
from app.api.origins import SameOrigin
from app.api.outcomes import Outcomes
from app.api.page import page_blueprint
from app.api.positions import positions_blueprint
from app.api.settlements import Settlements, settlements_blueprint
from app.api.stream import Commands, stream_blueprint
from app.api.tickers import Tickers, tickers_blueprint
from app.api.watch import Watch
from app.config import Settings, is_loopback
from app.embedded.stores import Stores, find_stores
from app.engine import floors, halts
from app.engine.book import Books
from app.engine.executor import PipelinedExecutor
from app.engine.reads import BookReads
from app.feed.hub import Hub
from app.feed.reader import connect as connect_feed
from app.persistence.market_data import MarketData
from app.persistence.queries import Queries, open_pool

REDIS_TIMEOUT_S = 5.0
"""Longer than the worst script and an fsync on a slow disk; then the answer is 503."""
REDIS_CONNECT_TIMEOUT_S = 2.0
MAX_REDIS_CONNECTIONS = 32
"""For single reads; one more waits for its turn. Orders share one connection beside these."""


def create_application() -> Flask:
    """The application of this process, from the environment's settings."""
    settings = Settings.from_environment(os.environ)
    return build(settings, find_stores(settings))


def connect_redis(url: str, timeout_s: float = REDIS_TIMEOUT_S) -> Redis:
    """A client that never repeats a command by itself: nobody could say whether it happened."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_REDIS_CONNECTIONS,
        timeout=timeout_s,  # seconds to wait for a connection
        socket_timeout=timeout_s,
        socket_connect_timeout=REDIS_CONNECT_TIMEOUT_S,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)


def build(settings: Settings, stores: Stores) -> Flask:
    """The application on given stores."""
    client = connect_redis(stores.redis_url)
    reads = BookReads(client)
    books = Books(
        PipelinedExecutor(client),
        settings.idempotency_ttl_s,
        floors=floors.current(),
        tell_behind=partial(halts.tell_lost, client),
    )
    pool = open_pool(stores.database_url)
    queries = Queries(pool)
    markets = Markets(reads)
    outcomes = Outcomes(reads, queries)
    entry = OrderEntry(books, reads, queries, markets, outcomes)
    batches = Batches(books, markets, outcomes)
    cancels = MassCancels(books, reads)
    commands = Commands(
        answering(entry.place),
        answering(entry.amend),
        answering(entry.cancel),
        Disconnects(cancels).keep,
    )
    history = History(reads, queries, markets)
    data = MarketData(queries)
    candles = Candles(data, markets)
    tickers = Tickers(books, reads, data, markets)
    hub = Hub(connect_feed(stores.redis_url), tickers.ticker)
    listing = Listing(books, reads, stores.database_url)
    listing.start()
    Watch(books, reads).start()

    app = LeanFlask("crossbook", static_folder=None)
    app.extensions |= {"hub": hub, "pool": pool}  # what has to be told when the process ends
    problems.register(app)
    app.register_blueprint(orders_blueprint(entry, batches, history))
    app.register_blueprint(client_orders_blueprint(books, markets, cancels))
    app.register_blueprint(market_blueprint(books, reads, markets, history))
    app.register_blueprint(candles_blueprint(candles))
    app.register_blueprint(tickers_blueprint(tickers))
    app.register_blueprint(analytics_blueprint(data, markets))
    app.register_blueprint(positions_blueprint(data, markets))
    snapshots = Snapshots(stores.database_url)
    app.register_blueprint(admin_blueprint(listing, books, reads, markets, cancels, snapshots))
    settlements = Settlements(stores.database_url, markets)
    app.register_blueprint(settlements_blueprint(settlements))
    app.register_blueprint(health_blueprint(reads, queries))
    app.register_blueprint(stream_blueprint(hub, commands, markets.find))
    app.register_blueprint(page_blueprint())
    dialects.register(app)  # of the routes above
    same_origin = SameOrigin(app.wsgi_app, loopback_only=is_loopback(settings.host))
    app.wsgi_app = RequestIds(same_origin)  # type: ignore[method-assign]
    return app
