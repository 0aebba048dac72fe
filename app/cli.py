"""The commands: `python -m app <command>`. Reads the settings, sets up logging and calls the one
function that does the work; errors that are the person's to mend become one line.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from app import logs
from app.config import ConfigurationError, Settings
from app.embedded.process import EmbeddedServerError
from app.embedded.stores import (
    find_database_url,
    find_stores,
    opened_database_url,
    opened_stores,
)
from app.listening import await_port, base_url

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
# What argparse uses, too: the command never began.
EXIT_NOT_STARTED: Final = 2
# Postgres or Redis does not answer: the same may go well later.
EXIT_STORE_AWAY: Final = 3
# Of 19: a snapshot of a large book takes a minute of a core, which whoever trades needs more.
SNAPSHOT_NICENESS: Final = 10
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


def _replay(settings: Settings, arguments: argparse.Namespace) -> int:
    import psycopg  # noqa: PLC0415

    from app.persistence.replay import ReplayRefused, replay  # noqa: PLC0415

    try:
        with opened_database_url(settings) as database_url:
            report = replay(database_url, repair=arguments.repair)
    except (ReplayRefused, psycopg.Error) as error:
        return _say(error, EXIT_FAILED)
    for line in report.lines():
        print(line)
    return EXIT_OK if report.is_equal else EXIT_FAILED


def _replay_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--repair", action="store_true", help="write what differs into the live tables"
    )


def _verify(settings: Settings, arguments: argparse.Namespace) -> int:
    import psycopg  # noqa: PLC0415
    import redis  # noqa: PLC0415

    from app.persistence.verify import UnknownSymbol, verify  # noqa: PLC0415

    wanted = {"full": arguments.full, "symbols": arguments.instrument}
    try:
        with opened_stores(settings) as stores:
            ttl_s = stores.idempotency_ttl_s or settings.idempotency_ttl_s
            report = verify(stores.redis_url, stores.database_url, ttl_s, **wanted)
    except (UnknownSymbol, redis.RedisError, psycopg.Error) as error:
        return _say(error, EXIT_FAILED)
    for line in [report.json()] if arguments.json else report.lines():
        print(line)
    return EXIT_FAILED if report.breaches_total else EXIT_OK


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    _instrument_arguments(parser)
    parser.add_argument(
        "--full", action="store_true", help="from the first event on, not from the newest snapshot"
    )
    parser.add_argument("--json", action="store_true", help="one object, for machines")


def _rebuild(settings: Settings, arguments: argparse.Namespace) -> int:
    from app.persistence.rebuild import AWAY, RebuildRefused, Wish, rebuild  # noqa: PLC0415

    wish = Wish(
        tuple(arguments.instrument),
        discard_newer=arguments.discard_newer,
        only_lost=arguments.if_empty,
    )
    is_well = True
    try:
        with opened_stores(settings) as stores:
            ttl_s = stores.idempotency_ttl_s or settings.idempotency_ttl_s
            for outcome in rebuild(stores.redis_url, stores.database_url, ttl_s, wish):
                print(outcome.line(), flush=True)
                is_well &= outcome.is_well
    except (RebuildRefused, *AWAY) as error:
        return _say(error, EXIT_FAILED)
    return EXIT_OK if is_well else EXIT_FAILED


def _rebuild_arguments(parser: argparse.ArgumentParser) -> None:
    _instrument_arguments(parser)
    parser.add_argument(
        "--discard-newer",
        action="store_true",
        help="also where that gives up events of a halted book that Postgres has not",
    )
    parser.add_argument("--if-empty", action="store_true", help="only books that Redis lost whole")


def _snapshot(settings: Settings, arguments: argparse.Namespace) -> int:
    import psycopg  # noqa: PLC0415

    from app.persistence.book_history import (  # noqa: PLC0415
        BROKEN,
        UnknownInstrument,
        take_snapshots,
    )
    from app.persistence.snapshots import document  # noqa: PLC0415

    os.nice(SNAPSHOT_NICENESS)
    try:
        with opened_database_url(settings) as database_url:
            for snapshot in take_snapshots(database_url, arguments.instrument):
                print(document(snapshot) if arguments.json else snapshot.line(), flush=True)
    except psycopg.OperationalError as error:
        return _say(error, EXIT_STORE_AWAY)
    except (*BROKEN, UnknownInstrument, psycopg.Error) as error:
        return _say(error, EXIT_FAILED)
    return EXIT_OK


def _snapshot_arguments(parser: argparse.ArgumentParser) -> None:
    _instrument_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one object a line, for machines")


def _settle(settings: Settings, arguments: argparse.Namespace) -> int:
    import psycopg  # noqa: PLC0415

    from app.clearing import reports, settlement  # noqa: PLC0415

    run_id = settlement.new_run_id() if arguments.run_id is None else arguments.run_id
    if not settlement.RUN_ID.fullmatch(run_id):
        return _say(ValueError(f"--run-id: {settlement.RUN_ID_RULE}"), EXIT_NOT_STARTED)
    try:
        with (
            opened_database_url(settings) as database_url,
            settlement.connect(database_url) as connection,
        ):
            settlement.settle(connection, settlement.Wanted(run_id, arguments.instrument))
            for text in reports.FORMATS[arguments.format](connection, run_id):
                print(text, end="")
    except psycopg.OperationalError as error:
        return _say(error, EXIT_STORE_AWAY)
    except (settlement.RunIdReused, settlement.UnknownInstrument, psycopg.Error) as error:
        return _say(error, EXIT_FAILED)
    return EXIT_OK


def _settle_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run-id", help="of the run: one that is done is told again, one that is not goes on"
    )
    parser.add_argument("--instrument", metavar="SYMBOL", help="only this one")
    parser.add_argument("--format", choices=("text", "csv", "json"), default="text")


def _simulate(settings: Settings, arguments: argparse.Namespace) -> int:
    from app.simulation.client import ServerAway, ServerRefuses  # noqa: PLC0415
    from app.simulation.options import options_of  # noqa: PLC0415
    from app.simulation.run import run  # noqa: PLC0415

    options = options_of(arguments, base_url(settings))
    try:
        is_clean = run(options, partial(print, flush=True))
    except (ServerAway, ServerRefuses) as error:
        return _say(error, EXIT_FAILED)
    return EXIT_OK if is_clean else EXIT_FAILED


def _simulate_arguments(parser: argparse.ArgumentParser) -> None:
    from app.simulation import options  # noqa: PLC0415

    options.add_arguments(parser)


def _instrument_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--instrument",
        action="append",
        default=[],
        metavar="SYMBOL",
        help="only this one; may be given several times",
    )


COMMANDS: Final = (
    Command(name="up", summary="everything on this machine; Ctrl-C stops it", run=_up),
    Command(name="serve", summary="the API alone", run=_serve),
    Command(
        name="persist", summary="events from Redis to Postgres; timers and expiries", run=_persist
    ),
    Command(name="migrate", summary="bring the database schema up to date", run=_migrate),
    Command(
        name="verify",
        summary="audit of a running or stopped system: books, levels, sums, Redis against Postgres",
        run=_verify,
        add_arguments=_verify_arguments,
    ),
    Command(
        name="replay",
        summary="read models once more from the event store; says whether they equal the live ones",
        run=_replay,
        add_arguments=_replay_arguments,
    ),
    Command(
        name="rebuild",
        summary="books in Redis from Postgres, for a Redis that lost its disk or went back in time",
        run=_rebuild,
        add_arguments=_rebuild_arguments,
    ),
    Command(
        name="snapshot",
        summary="writes books down in Postgres as they are there, with their digests",
        run=_snapshot,
        add_arguments=_snapshot_arguments,
    ),
    Command(
        name="simulate",
        summary="traders on a running server, so that its page and dashboards live; Ctrl-C ends it",
        run=_simulate,
        add_arguments=_simulate_arguments,
    ),
    Command(
        name="settle",
        summary="nets all trades since the last settlement into what each client owes and is owed",
        run=_settle,
        add_arguments=_settle_arguments,
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        settings = Settings.from_environment(os.environ)
        logs.configure(settings)
        code: int = arguments.command.run(settings, arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # As `| head -1` leaves us. Python would complain of it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
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
    # One line, also where a server's own message has several.
    print(f"crossbook: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _raise_open_files_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_WANTED)
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
