"""Where Redis and Postgres are: named by the environment, run by an `up`, or, where none runs,
started for the time of one command. Every command gets its two URLs from this module; must not know
what a command does with them.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from app.config import ConfigurationError, Settings
from app.embedded.lock import DataDirLock, is_held
from app.embedded.process import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from app.embedded.postgres_server import EmbeddedPostgres
    from app.embedded.redis_server import EmbeddedRedis

# Says where the servers of a running `up` are; means nothing once nobody holds the lock.
FILE_NAME: Final = "stores.json"


@dataclass(frozen=True, slots=True)
class Stores:
    """The two URLs; and the time to live of idempotency keys that an `up` on this folder runs with,
    0 where that is not known.
    """

    redis_url: str
    database_url: str
    idempotency_ttl_s: int = 0

    def environment(self) -> Mapping[str, str]:
        """As variables for a child process."""
        return {"REDIS_URL": self.redis_url, "DATABASE_URL": self.database_url}


def find_stores(settings: Settings) -> Stores:
    """From the environment, else of the `up` that runs on this data folder.
    Raises ConfigurationError if neither knows.
    """
    redis_url = settings.redis_url or _running("REDIS_URL", settings).redis_url
    return Stores(redis_url, find_database_url(settings), _published_ttl_s(settings))


def find_database_url(settings: Settings) -> str:
    """Postgres alone, as find_stores."""
    return settings.database_url or _running("DATABASE_URL", settings).database_url


@contextmanager
def opened_stores(settings: Settings) -> Iterator[Stores]:
    """As find_stores; where neither knows, the servers of the data folder run until the block ends.

    Raises:
        ConfigurationError: nothing has ever run on that folder. EmbeddedServerError.
    """
    with ExitStack() as servers:
        if _needs_servers(settings):
            yield _started(settings, servers)
        else:
            yield find_stores(settings)


@contextmanager
def opened_database_url(settings: Settings) -> Iterator[str]:
    """Postgres alone, as opened_stores."""
    if settings.database_url:
        yield settings.database_url
        return
    with opened_stores(settings) as stores:
        yield stores.database_url


def _needs_servers(settings: Settings) -> bool:
    named = settings.redis_url and settings.database_url
    return not named and not is_held(settings.data_dir)


def _started(settings: Settings, servers: ExitStack) -> Stores:
    # Only now are they needed: most commands find what they look for.
    from app.embedded.postgres_server import EmbeddedPostgres  # noqa: PLC0415
    from app.embedded.redis_server import EmbeddedRedis  # noqa: PLC0415

    if settings.database_url is None and not EmbeddedPostgres(settings.data_dir).cluster.exists():
        # An empty system would answer, and hide that the folder is the wrong one.
        raise ConfigurationError(
            f"DATABASE_URL is not set and no `python -m app up` ever ran on {settings.data_dir}"
        )
    servers.enter_context(DataDirLock(settings.data_dir))
    redis_url = settings.redis_url or _run(EmbeddedRedis(settings.data_dir), servers)
    database_url = settings.database_url or _run(EmbeddedPostgres(settings.data_dir), servers)
    return Stores(redis_url, database_url, _published_ttl_s(settings))


def _published_ttl_s(settings: Settings) -> int:
    """Of servers of somebody else's the environment tells it."""
    if settings.redis_url:
        return 0
    try:
        return Stores(**json.loads(_file(settings).read_text(encoding="utf-8"))).idempotency_ttl_s
    except (OSError, ValueError, TypeError):
        return 0


def _file(settings: Settings) -> Path:
    return settings.data_dir / FILE_NAME


def _run(server: EmbeddedRedis | EmbeddedPostgres, servers: ExitStack) -> str:
    for attempts_left in reversed(range(server.start_attempts)):
        try:
            server.start()
            server.wait_ready()
        except EmbeddedServerError:
            server.stop()
            if not attempts_left:
                raise
        else:
            break
    servers.callback(server.stop)
    return server.url


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
