"""One supervisor per data folder: a lock that the kernel frees when its holder ends, however.
Must not know what is in the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, Final, Self

from app.config import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME: Final = "lock"
# A supervisor that is just ending, or one that only looks (is_held), frees it within this time.
PATIENCE_S: Final = 0.5
RETRY_INTERVAL_S: Final = 0.02


class DataDirLock:
    """Held from `with` to its end. The file stays: removing it would let a third in."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Raises ConfigurationError if the folder is taken or cannot be written."""
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._data_dir / FILE_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigurationError(
                f"DATA_DIR={str(self._data_dir)!r} cannot be used: {error.strerror}"
            ) from None
        if not _lock_soon(self._descriptor):
            holder = os.read(self._descriptor, 20).decode(errors="replace").strip() or "unknown"
            self.__exit__()
            raise ConfigurationError(
                f"DATA_DIR={str(self._data_dir)!r} is in use by another Crossbook (pid {holder}); "
                "stop that one or give another folder"
            )
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())
        return self

    def __exit__(self, *_: object) -> None:
        """Frees the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_held(data_dir: Path) -> bool:
    """True while some supervisor has the folder."""
    try:
        descriptor = os.open(data_dir / FILE_NAME, os.O_RDONLY)
    except OSError:
        return False
    with contextlib.closing(os.fdopen(descriptor)):
        return not _try_lock(descriptor)


def _lock_soon(descriptor: int) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not (locked := _try_lock(descriptor)) and time.monotonic() < deadline:
        time.sleep(RETRY_INTERVAL_S)
    return locked


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
