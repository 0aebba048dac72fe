"""Ports for the servers of tests. Each is given once: a server that was killed finds its own again,
and of processes that share a run's tests none takes another's.
"""

import os
import random
from pathlib import Path
from typing import Final

from app.embedded import ports

# Far from the usual ports, below those that the kernel gives to clients.
_ALL: Final = range(20_000, 30_000)
# Of pytest-xdist; absent where one process runs all.
_PROCESSES: Final = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_OWN: Final = _ALL[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) :: _PROCESSES]
_left: Final = random.sample(_OWN, len(_OWN))


def free_port() -> int:
    """One on which nothing listens, and which nobody was given before."""
    while not ports.is_free(port := _left.pop()):
        pass
    return port


def remember_free_ports(data_dir: Path) -> None:
    """Give ports to the embedded servers of `data_dir`, which have not been there yet."""
    for store in ("redis", "postgres"):
        (data_dir / store).mkdir()
        ports.choose(free_port(), data_dir / store / "port")
