"""Cancel on disconnect on a whole system: orders of clients whose WebSocket has ended are
cancelled, also where Redis is away at that moment.
"""

from collections.abc import Iterator

import pytest

from tests.integration.test_stream import Client
from tests.rest import Api, an_order
from tests.system import System, running_system
from tests.waiting import wait_for

REASON = "cancelled_on_disconnect"


def connect(system: System) -> Client:
    return Client(f"ws://127.0.0.1:{system.api.port}/ws")


def place(api: Api, symbol: str, client_id: str) -> str:
    return str(api.placed(an_order(symbol, client_id=client_id))["order"]["order_id"])


def reason(api: Api, order: str) -> object:
    return api.order(order)["reason"]


def test_all_open_orders_of_the_client_are_cancelled(system: System, symbol: str) -> None:
    """Those of REST and of the socket, on each instrument; nobody else's."""
    api, other = system.api, system.list_instrument()
    client_id = f"gone {symbol}"
    socket = connect(system)
    asked = {"op": "cancel_on_disconnect", "client_id": client_id, "request_id": 1}
    assert socket.ask(asked)["status"] == 200
    order = an_order(symbol, client_id=client_id)
    over_socket = socket.ask({"op": "place", "request_id": 2, "order": order})["body"]["order"]
    mine = [place(api, symbol, client_id), place(api, other, client_id), over_socket["order_id"]]
    strangers = place(api, symbol, "bob")
    socket.ws.shutdown()
    wait_for(lambda: all(reason(api, each) == REASON for each in mine), 10)
    assert api.order(strangers)["status"] == "open"


def test_only_on_the_instruments_named(system: System, symbol: str) -> None:
    api, other = system.api, system.list_instrument()
    client_id = f"gone {symbol}"
    socket = connect(system)
    instruments = [symbol]
    socket.ask({"op": "cancel_on_disconnect", "client_id": client_id, "instruments": instruments})
    kept, mine = place(api, other, client_id), place(api, symbol, client_id)
    socket.ws.close()
    wait_for(lambda: reason(api, mine) == REASON, 10)
    assert api.order(kept)["status"] == "open"


def test_orders_of_a_halted_instrument_are_cancelled_when_it_opens(
    system: System, symbol: str
) -> None:
    api, client_id = system.api, f"gone {symbol}"
    socket = connect(system)
    socket.ask({"op": "cancel_on_disconnect", "client_id": client_id})
    mine = place(api, symbol, client_id)
    api.changed_rules(symbol, status="halted")
    socket.ws.shutdown()
    wait_for(lambda: f"halted: {symbol}" in system.log(), 10)
    assert api.order(mine)["status"] == "open"
    api.changed_rules(symbol, status="open")
    wait_for(lambda: reason(api, mine) == REASON, 10)


def test_an_amendment_over_the_socket(system: System, symbol: str) -> None:
    """As PATCH: answered with status and body, refusals too."""
    order = place(system.api, symbol, "ann")
    socket = connect(system)
    answer = socket.ask({"op": "amend", "request_id": 1, "order_id": order, "quantity": "2"})
    assert (answer["status"], answer["body"]["order"]["quantity"]) == (200, "2")
    assert answer["body"]["order"] == system.api.order(order)
    wrong = socket.ask({"op": "amend", "request_id": 2, "order_id": order})
    assert (wrong["status"], wrong["body"]["code"]) == (400, "validation_failed")
    socket.ws.close()


@pytest.fixture(scope="module")
def own() -> Iterator[System]:
    with running_system() as running:
        yield running


@pytest.mark.slow
def test_the_promise_is_kept_after_redis_was_away(own: System) -> None:
    api, symbol = own.api, own.list_instrument()
    socket = connect(own)
    socket.ask({"op": "cancel_on_disconnect", "client_id": "ann"})
    mine = place(api, symbol, "ann")
    with own.paused("redis"):
        socket.ws.shutdown()
        wait_for(lambda: "a cancel on disconnect has to wait" in own.log(), 30)
    wait_for(lambda: reason(api, mine) == REASON, 30)


@pytest.mark.slow
def test_the_promise_is_kept_when_the_whole_system_stops(own: System) -> None:
    """Its workers end their sockets before they end."""
    api, symbol = own.api, own.list_instrument()
    socket = connect(own)
    socket.ask({"op": "cancel_on_disconnect", "client_id": "ann"})
    mine = place(api, symbol, "ann")
    assert own.stop() == 0
    own.start()
    assert reason(api, mine) == REASON
