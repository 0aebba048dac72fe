"""Snapshots taken by a process of their own, `python -m app snapshot`: to compute a large book is
seconds of a core, during which neither an API worker nor the persister would do anything else.
"""

import os
import subprocess
import sys
from collections.abc import Collection
from typing import Any, Final

import msgspec

DETAIL_CHARACTERS_MAX: Final = 300
"""Of what a failed one says; its first words say what is wrong."""


class SnapshotFailed(Exception):
    """It ended with `code`, or not in time (None)."""

    def __init__(self, detail: str, code: int | None) -> None:
        super().__init__(detail[:DETAIL_CHARACTERS_MAX])
        self.code = code


def take(symbols: Collection[str], database_url: str, timeout_s: float) -> list[dict[str, Any]]:
    """Take a snapshot of each of `symbols`, or of every instrument; as `snapshot --json` tells
    them. What was taken before a failure stays.

    Raises:
        SnapshotFailed.
    """
    named = [word for symbol in symbols for word in ("--instrument", symbol)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "app", "snapshot", "--json", *named],
            check=False,
            capture_output=True,
            env=os.environ | {"DATABASE_URL": database_url},
            text=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        raise SnapshotFailed(f"it took longer than {timeout_s:g} s", None) from error
    except OSError as error:
        raise SnapshotFailed(str(error), None) from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("crossbook: ")]
        said = lines[-1].removeprefix("crossbook: ") if lines else "it says nothing"
        raise SnapshotFailed(said, done.returncode)
    return [msgspec.json.decode(line) for line in done.stdout.splitlines()]
