"""The WebSocket's blueprint and hub in a Flask app of their own, for gunicorn: `server_app()`.

The commands of this app are stand-ins: a place answers with its order, waits while Redis has the
key `hold`, and fails where the order says so; an amend answers with what it was given; what
connections were promised is put on the list `disconnected`; a ticker is what Redis has under
`ticker:<symbol>`.
"""

import os
import time
from typing import NamedTuple

import msgspec
from flask import Flask, Response
from prometheus_client import generate_latest
from redis import Redis

from app.api.bodies import Changes
from app.api.disconnects import Promises
from app.api.problems import register
from app.api.stream import Commands, stream_blueprint
from app.domain.instruments import DEFAULT_INSTRUMENTS, Market
from app.domain.views import View
from app.feed.hub import Hub
from app.feed.reader import connect
from app.feed.subscribers import Subscriber


class Answer(NamedTuple):
    """A command's answer."""

    status: int
    body: bytes
    replayed: bool = False


def _hold(redis: "Redis") -> None:
    while redis.exists("hold"):
        time.sleep(0.01)


def server_app() -> Flask:
    """The app; REDIS_URL, SOCKETS_MAX and QUEUE_BYTES_MAX say how."""
    url = os.environ["REDIS_URL"]
    markets = {each.symbol: Market(each) for each in DEFAULT_INSTRUMENTS}
    queue_bytes = int(os.environ.get("QUEUE_BYTES_MAX", str(8 * 1024 * 1024)))
    redis = connect(url)

    def ticker(symbol: str) -> View:
        view: View = msgspec.json.decode(redis[f"ticker:{symbol}"])
        return view

    hub = Hub(
        connect(url),
        ticker,
        subscribers_max=int(os.environ.get("SOCKETS_MAX", "1000")),
        new_subscriber=lambda: Subscriber(bytes_max=queue_bytes),
    )

    def place(order: bytes) -> Answer:
        wanted = msgspec.json.decode(order)
        if wanted == {"fail": True}:
            raise RuntimeError("a defect")
        if wanted == {"hold": True}:
            _hold(redis)
        return Answer(201, b'{"order":%b,"pid":%d}' % (order, os.getpid()))

    def cancel(order_id: str) -> Answer:
        return Answer(404, msgspec.json.encode({"code": "order_not_found", "id": order_id}))

    def amend(order_id: str, changes: Changes) -> Answer:
        return Answer(200, msgspec.json.encode({"id": order_id, "changes": changes}))

    def disconnected(promises: Promises) -> None:
        redis.rpush("disconnected", msgspec.json.encode(promises).decode())

    commands = Commands(place, amend, cancel, disconnected)
    app = Flask(__name__)
    register(app)
    app.register_blueprint(stream_blueprint(hub, commands, markets.get))
    app.add_url_rule("/metrics", view_func=lambda: Response(generate_latest()))
    app.extensions["hub"] = hub
    return app
