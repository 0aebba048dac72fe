"""The seed documents (`data/seeds`), and the requests as they are printed in them: a test sends
what it finds in the text, and nothing that it has written itself.
"""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import websocket

from tests.rest import HOST, SEED_NAMES, Answer, Api, Json

SEEDS: Final = Path(__file__).parent / "data" / "seeds"
TIMEOUT_S: Final = 30


class Seed:
    """One document. `name` is its file's name without the ending."""

    def __init__(self, name: str) -> None:
        self._text = (SEEDS / f"{name}.txt").read_text()

    def line(self, start: str) -> str:
        """The printed line that starts so, as `GET /market/trades/BTC-USD`."""
        found = [line for line in self._text.splitlines() if line.startswith(start)]
        assert len(found) == 1, (start, found)
        return found[0]

    def body_below(self, line: str) -> bytes:
        """The JSON object that is printed below a line, headers and blanks in between or not."""
        found = re.search(
            rf"^{re.escape(line)}\n[^{{]*?(\{{.*?^\}})", self._text, re.MULTILINE | re.DOTALL
        )
        assert found is not None, line
        return found[1].encode()

    def row(self, *cells: str) -> list[str]:
        """The cells of a table's row that begins with these, without the marks of code."""
        for line in self._text.splitlines():
            row = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
            if row[: len(cells)] == list(cells):
                return row
        raise AssertionError(f"no row {cells}")

    def bullet(self, request: str) -> tuple[str, str]:
        """Method and path of a request that is printed as a point of a list."""
        assert f"- `{request}` - " in self._text, request
        method, path = request.split()
        return method, path

    def mentions(self, text: str) -> bool:
        """Whether the text is printed in it."""
        return text in self._text

    def curl(self, first_line: str) -> str:
        """A curl command, over all its lines."""
        start = self._text.index(f"\n{first_line}") + 1
        return self._text[start : self._text.index("}'\n", start) + 2]


def run_curl(api: Api, command: str) -> Answer:
    """A printed command in a shell, with this server's host and port."""
    here = command.replace("localhost:3000", f"127.0.0.1:{api.port}")
    assert here != command
    done = subprocess.run(
        ["bash", "-c", f"{here} -s -w '\\n%{{http_code}}'"],
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    body, _, status = done.stdout.rpartition("\n")
    return Answer(int(status), {}, body.encode())


def send(api: Api, method: str, path: str, body: bytes | None = None) -> Answer:
    """A printed request."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    return api.request(method, path, body, headers)


def check_placed(answer: Answer, **expected: str) -> Json:
    """The order that a seed's request has placed, which says `expected`: this contract's answer,
    with the seeds' names beside its own where they look for them.
    """
    assert answer.status == 201, answer
    document = answer.json()
    assert document.keys() == {"order", "trades", *SEED_NAMES}
    order: Json = document["order"]
    check_names(order)
    assert {name: document[name] for name in SEED_NAMES} == {n: order[n] for n in SEED_NAMES}
    assert {name: order[name] for name in expected} == expected
    return order


def check_names(order: Json) -> None:
    """An order has the seeds' names beside its own."""
    assert {theirs: order[ours] for theirs, ours in SEED_NAMES.items()} == {
        theirs: order[theirs] for theirs in SEED_NAMES
    }


def hears(api: Api, channel: str, instrument: str, act: Callable[[], object]) -> Json:
    """The first message of a channel's own kind that comes after `act`, over the WebSocket."""
    connection = websocket.create_connection(f"ws://{HOST}:{api.port}/ws", timeout=TIMEOUT_S)
    try:
        asked = {"op": "subscribe", "channels": [channel], "instruments": [instrument]}
        connection.send(json.dumps(asked))
        while json.loads(connection.recv())["type"] != "subscribed":
            pass
        act()
        while (message := json.loads(connection.recv()))["type"] == "heartbeat":
            pass
        heard: Json = message
        return heard
    finally:
        connection.close()
