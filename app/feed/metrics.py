"""What Prometheus learns of the feed. Every metric is right over all worker processes."""

from prometheus_client import Counter, Gauge

CONNECTIONS = Gauge(
    "crossbook_websocket_connections", "Open WebSockets", multiprocess_mode="livesum"
)
MESSAGES_SENT = Counter("crossbook_websocket_messages_sent", "Messages written to WebSockets")
SLOW_CONSUMERS = Counter(
    "crossbook_websocket_slow_consumers", "WebSockets closed because they read too slowly"
)
LAG_EVENTS = Gauge(
    "crossbook_feed_lag_events",
    "Events of the book that the slowest process has not fanned out yet",
    ["instrument"],
    multiprocess_mode="livemax",
)
