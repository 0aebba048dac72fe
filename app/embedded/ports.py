"""Which TCP port an embedded server listens on: the one of last time, the usual one, or a free one.
Asks the kernel by binding; must not know who wants the port.
"""

from __future__ import annotations

import logging
import random
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

log: Final = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"
# Tried at random above the usual port and below the range that the kernel gives to clients, so
# that two starts at the same moment rarely pick the same and no outgoing connection takes it.
SPREAD: Final = 2_000
ATTEMPTS_MAX: Final = 50


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """True if a server could listen on `host` and `port` now."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as candidate:
            # What servers set: a port whose last connections are in TIME_WAIT counts as free.
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            candidate.bind(address)
            candidate.listen(1)
    except OSError:
        return False
    return True


def choose(usual: int, remembered_in: Path) -> int:
    """The port in the file `remembered_in`, else `usual`, else another: the first that is free.
    Writes the choice back, so that bookmarks and open shells stay right over a restart.
    """
    remembered = _read(remembered_in)
    preferred = [port for port in (remembered, usual) if port is not None]
    port = next((port for port in preferred if is_free(port)), None) or _any_free(usual)
    if port != remembered:
        remembered_in.write_text(f"{port}\n", encoding="ascii")
    return port


class ServerPort:
    """The port of one embedded server, over its starts: `number`, None until one is chosen, and
    whether the server `listens` there or answers on its socket only.
    """

    def __init__(self, given: int | None, usual: int, remembered_in: Path) -> None:
        """`given` stands for any choice."""
        self.number = given
        self.listens = True
        self._is_given = given is not None
        self._usual = usual
        self._remembered_in = remembered_in

    def choose(self) -> None:
        """Before a start that nobody has met yet."""
        if not self._is_given:
            self.number = choose(self._usual, self._remembered_in)

    def look_again(self, name: str) -> None:
        """Before the server `name` comes back. Where another took its port meanwhile, it should do
        without: our own processes reach it by its socket.
        """
        assert self.number is not None, "it was on one"
        self.listens = is_free(self.number)
        if not self.listens:
            told = "port %d is taken: %s answers on its socket only, until it starts anew"
            log.warning(told, self.number, name)


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _any_free(usual: int) -> int:
    for _ in range(ATTEMPTS_MAX):
        port = random.randint(usual + 1, usual + SPREAD)  # noqa: S311  # not a secret
        if is_free(port):
            return port
    with socket.create_server((LOOPBACK, 0)) as anything:
        return int(anything.getsockname()[1])
