"""The floor that order entry is measured against: a Flask application that reads a JSON body and
answers with a constant one, as long as a real answer. Served by the project's gunicorn settings;
must not import anything of ours.
"""

from flask import Flask, Response, request

ORDER = (
    b'{"order":{"order_id":"BTC-USD-00000000000001","instrument":"BTC-USD","client_id":"trader-1",'
    b'"side":"buy","type":"limit","quantity":"0.10000000","price":"60000.00","stop_price":null,'
    b'"time_in_force":"gtc","expires_at":null,"post_only":false,"display_quantity":null,'
    b'"self_trade_prevention":"none","client_order_id":null,"idempotency_key":null,'
    b'"status":"open","filled_quantity":"0.00000000","remaining_quantity":"0.10000000",'
    b'"average_price":null,"reason":null,"sequence":1,"created_at":"2026-01-01T00:00:00.000000Z",'
    b'"updated_at":"2026-01-01T00:00:00.000000Z"},"trades":[]}'
)


def create_app() -> Flask:
    """What gunicorn serves: POST /orders, and /readyz for whoever waits for the start."""
    app = Flask("noop", static_folder=None)

    @app.post("/orders")
    def place() -> Response:
        request.get_json()
        return Response(ORDER, 201, mimetype="application/json")

    @app.get("/readyz")
    def ready() -> Response:
        return Response(b"{}", mimetype="application/json")

    return app
