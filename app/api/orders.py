"""REST for orders: place, read, list, amend, cancel; and many of them in one request."""

from flask import Blueprint, Response, request

from app.api.batches import MAX_BATCH_BYTES, Batches
from app.api.bodies import decode_changes
from app.api.commands import OrderEntry
from app.api.dialects import with_order_names
from app.api.history import History
from app.api.http import REQUEST_ID_KEY, encoded_response, json_response, read_body, read_query
from app.api.problems import FieldError, invalid
from app.domain.views import order_view

LIST_PARAMETERS = dict.fromkeys(
    ("client_id", "instrument", "status", "client_order_id", "limit", "cursor"), False
)


def orders_blueprint(entry: OrderEntry, batches: Batches, history: History) -> Blueprint:
    """Routes under `/orders` that are about single orders."""
    blueprint = Blueprint("orders", __name__)

    @blueprint.post("/orders")
    def place() -> Response:
        environ = request.environ
        key, request_id = environ.get("HTTP_IDEMPOTENCY_KEY"), environ[REQUEST_ID_KEY]
        answer = entry.place(read_body(environ), key, request_id)
        response = encoded_response(answer.body, answer.status)
        if answer.replayed:
            response.headers["Idempotent-Replayed"] = "true"
        return response

    @blueprint.post("/orders/batch")
    def batch() -> Response:
        environ = request.environ
        if "HTTP_IDEMPOTENCY_KEY" in environ:
            detail = "each item of a batch has its own idempotency_key"
            raise invalid([FieldError("Idempotency-Key", "not_allowed", detail)])
        body = read_body(environ, MAX_BATCH_BYTES)
        return encoded_response(batches.run(body, environ[REQUEST_ID_KEY]), 200)

    @blueprint.get("/orders")
    def page() -> Response:
        return json_response(history.orders(read_query(LIST_PARAMETERS)))

    @blueprint.get("/orders/<order_id>")
    def read(order_id: str) -> Response:
        market, order = entry.order(order_id)
        # A seed document has this very path; nothing tells its clients from others.
        return json_response(with_order_names(order_view(market, order)))

    @blueprint.patch("/orders/<order_id>")
    def amend(order_id: str) -> Response:
        changes = decode_changes(read_body(request.environ))
        answer = entry.amend(order_id, changes, request.environ[REQUEST_ID_KEY])
        return encoded_response(answer.body, answer.status)

    @blueprint.delete("/orders/<order_id>")
    @blueprint.post("/orders/<order_id>/cancel")
    def cancel(order_id: str) -> Response:
        answer = entry.cancel(order_id, request.environ[REQUEST_ID_KEY])
        return encoded_response(answer.body, answer.status)

    return blueprint
