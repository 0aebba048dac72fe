"""Where Redis and Postgres are: named by the environment, or run by an `up`.
Every command gets its two URLs from this module; must not know what a command does with them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from app.config import ConfigurationError, Settings
from app.embedded.lock import is_held

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Says where the servers of a running `up` are; means nothing once nobody holds the lock.
FILE_NAME: Final = "stores.json"


@dataclass(frozen=True, slots=True)
class Stores:
    """The two URLs."""

    redis_url: str
    database_url: str

    def environment(self) -> Mapping[str, str]:
        """As variables for a child process."""
        return {"REDIS_URL": self.redis_url, "DATABASE_URL": self.database_url}


def find_stores(settings: Settings) -> Stores:
    """From the environment, else of the `up` that runs on this data folder.
    Raises ConfigurationError if neither knows.
    """
    redis_url = settings.redis_url or _running("REDIS_URL", settings).redis_url
    return Stores(redis_url, find_database_url(settings))


def find_database_url(settings: Settings) -> str:
    """Postgres alone, as find_stores."""
    return settings.database_url or _running("DATABASE_URL", settings).database_url


def publish(data_dir: Path, stores: Stores) -> None:
    """Let other commands on this data folder find the stores."""
    temporary = data_dir / f"{FILE_NAME}.new"
    temporary.write_text(json.dumps(asdict(stores)) + "\n", encoding="utf-8")
    temporary.replace(data_dir / FILE_NAME)


def _running(missing: str, settings: Settings) -> Stores:
    folder = settings.data_dir
    if not is_held(folder):
        raise ConfigurationError(f"{missing} is not set and no `python -m app up` runs on {folder}")
    try:
        return Stores(**json.loads((folder / FILE_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise ConfigurationError(f"the `python -m app up` on {folder} is not ready yet") from None
