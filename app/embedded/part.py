"""A part of Crossbook itself (`serve`, `persist`) as a child process of `up`.
Must not import the part: it runs in a process of its own and finds the stores by environment.
"""

from __future__ import annotations

import http.client
import signal
import sys
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from app.embedded.process import ChildProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Longer than /readyz takes to say that a store is away (0.5 s), also on a busy machine.
HTTP_TIMEOUT_S: Final = 2.0
# Enough of an answer to see what is wrong.
ANSWER_BYTES_MAX: Final = 500


class Part(ChildProcess):
    """`python -m app <command>`; it logs to our terminal."""

    def __init__(
        self,
        command: str,
        environ: Mapping[str, str],
        *,
        what_is_missing: Callable[[], str | None] = lambda: None,
        stop_timeout_s: float,
    ) -> None:
        super().__init__()
        self.name = command
        # Ends by itself within this time; else its workers go with it (see _sweep_group).
        self.stop_steps = ((signal.SIGTERM, stop_timeout_s), (signal.SIGKILL, 5.0))
        self._environ = dict(environ)
        self._what_is_missing = what_is_missing
        self._missing: str | None = None

    def command(self) -> Sequence[str]:
        """The same interpreter, the same code."""
        return [sys.executable, "-m", "app", self.name]

    def environment(self) -> Mapping[str, str]:
        """Ours with the stores that we started."""
        return self._environ

    def probe(self) -> bool:
        """True while it runs and nothing is missing."""
        self._missing = self._what_is_missing()
        return self._missing is None and self.exit_code() is None

    def last_lines(self) -> list[str]:
        """What was missing last; its log is on our terminal already."""
        return [self._missing] if self._missing else []


def missing_at(url: str) -> str | None:
    """None if a GET of `url` is answered with 200, else what came instead."""
    # No proxy from the environment: this never leaves the machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=HTTP_TIMEOUT_S) as response:
            return None if response.status == HTTPStatus.OK else f"{url}: {response.status}"
    except urllib.error.HTTPError as error:
        body = error.read(ANSWER_BYTES_MAX).decode(errors="replace")
        return f"{url}: {error.code} {body}"
    except (OSError, http.client.HTTPException) as error:
        return f"{url}: {error}"
