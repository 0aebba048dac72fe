"""The commands: `python -m app <command>`. Reads the settings, sets up logging and calls the one
function that does the work; errors that are the person's to mend become one line.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from app import logs
from app.config import ConfigurationError, Settings
from app.embedded.process import EmbeddedServerError
from app.embedded.stores import find_database_url, find_stores
from app.listening import await_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
# What argparse uses, too: the command never began.
EXIT_NOT_STARTED: Final = 2
# Every socket is an open file; systems start processes with 1,024.
OPEN_FILES_WANTED: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A sub-command. `run` gets the settings and the parsed arguments and returns the exit code;
    imports that only it needs belong inside it, so that the others start quickly.
    """

    name: str
    summary: str
    run: Callable[[Settings, argparse.Namespace], int]
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda _parser: None


def _up(settings: Settings, _arguments: argparse.Namespace) -> int:
    from app import up  # noqa: PLC0415

    return up.run(settings)


def _serve(settings: Settings, _arguments: argparse.Namespace) -> int:
    stores = find_stores(settings)
    await_port(settings)
    _raise_open_files_limit()
    config = ["-c", "python:app.gunicorn_config", "app:create_app()"]
    # In our place rather than below us: whoever supervises this process supervises gunicorn.
    os.execve(  # noqa: S606
        sys.executable,
        [sys.executable, "-m", "gunicorn", *config],
        os.environ | dict(stores.environment()),
    )


def _persist(settings: Settings, _arguments: argparse.Namespace) -> int:
    from app import persist  # noqa: PLC0415

    stores = find_stores(settings)
    persist.run(replace(settings, redis_url=stores.redis_url, database_url=stores.database_url))
    return EXIT_OK


def _migrate(settings: Settings, _arguments: argparse.Namespace) -> int:
    from app.persistence.instruments import seed  # noqa: PLC0415
    from app.persistence.migrations import migrate  # noqa: PLC0415

    migrate(find_database_url(settings))
    seed(find_database_url(settings))
    return EXIT_OK


COMMANDS: Final = (
    Command(name="up", summary="everything on this machine; Ctrl-C stops it", run=_up),
    Command(name="serve", summary="the API alone", run=_serve),
    Command(
        name="persist", summary="events from Redis to Postgres; timers and expiries", run=_persist
    ),
    Command(name="migrate", summary="bring the database schema up to date", run=_migrate),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        settings = Settings.from_environment(os.environ)
        logs.configure(settings)
        code: int = arguments.command.run(settings, arguments)
    except ConfigurationError as error:
        return _say(error, EXIT_NOT_STARTED)
    except EmbeddedServerError as error:
        return _say(error, EXIT_FAILED)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m app",
        description="Crossbook, a limit order book. Settings come from the environment.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.summary, description=command.summary)
        command.add_arguments(sub)
        sub.set_defaults(command=command)
    return parser


def _say(error: Exception, code: int) -> int:
    print(f"crossbook: {error}", file=sys.stderr)
    return code


def _raise_open_files_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_WANTED)
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
