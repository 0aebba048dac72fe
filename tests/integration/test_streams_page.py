"""`docs/STREAMS.md`: each message printed there is one that the server takes or sends."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

import websocket

from app.feed.messages import Channel
from tests.rest import HOST, TIMEOUT_S, Json
from tests.system import ROOT, System

PAGE: Final = (ROOT / "docs" / "STREAMS.md").read_text()
LEFT_OUT: Final = {"order", "response"}
"""Types whose messages the page shortens."""
MESSAGES_MAX: Final = 100
"""Of which a heartbeat is one each second."""
OPTIONAL: Final = {"checksum", "interval_ms", "request_id"}
"""Fields that are there where they were asked for."""


def printed() -> list[Json]:
    """Each line of each block."""
    blocks = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    return [json.loads(line) for block in blocks for line in block.splitlines()]


def heard(socket: websocket.WebSocket) -> Iterator[Json]:
    """What the server says, for ever."""
    while True:
        yield json.loads(socket.recv())


def test_the_server_takes_what_is_printed(system: System, symbol: str) -> None:
    """Every request of the page, in its order, on a fresh instrument: none is an error, and what
    comes has the types and the fields that the page shows."""
    requests = [message for message in printed() if "op" in message]
    shown = {m["type"]: m for m in printed() if m.get("type") not in (None, "error")}
    assert {each for message in requests for each in message.get("channels", ())} == set(Channel)
    socket = websocket.create_connection(f"ws://{HOST}:{system.api.port}/ws", TIMEOUT_S)
    order = {"instrument": symbol, "side": "sell", "quantity": "1", "price": "64000"}
    whole = {"op": "subscribe", "channels": list(Channel), "instruments": ["BTC-USD"]}
    told: dict[str, Json] = {}
    try:
        for number, message in enumerate([*requests, whole]):
            text = json.dumps(message | {"request_id": number}).replace("BTC-USD", symbol)
            socket.send(text)
            for answer in heard(socket):
                told[answer["type"]] = answer
                assert answer.get("code") in (None, "gap"), answer
                if answer.get("request_id") == number:
                    break
        for side in ("sell", "buy"):
            system.api.placed(order | {"side": side})
        for answer in islice(heard(socket), MESSAGES_MAX):
            told[answer["type"]] = answer
            if told.keys() >= shown.keys():
                break
    finally:
        socket.close()
    assert told.keys() >= shown.keys()
    for kind, message in shown.items():
        assert message.keys() - OPTIONAL <= told[kind].keys(), kind
        if kind not in LEFT_OUT:
            assert told[kind].keys() <= message.keys() | OPTIONAL, kind
