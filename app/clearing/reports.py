"""What is told of settlements: the report of one as JSON, CSV and lines for a person; the list of
all. Amounts are exact, without zeros at the end. Only reads, and must not know how one is computed.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from app.domain.views import View, timestamp
from app.persistence.event_store import Connection
from app.persistence.rows import microseconds

CSV_ROWS_PER_READ: Final = 1_000
RUN_COLUMNS: Final = ("run_id", "instrument", "status", "started_at", "finished_at", "trades")
OBLIGATION_COLUMNS: Final = ("client_id", "asset", "received", "delivered", "fees", "amount")
CSV_COLUMNS: Final = ("run_id", "account", *OBLIGATION_COLUMNS)
CLIENT, VENUE = "client", "venue"
"""Accounts of a CSV report's lines; the venue's have no client_id."""


class Obligation(NamedTuple):
    """What one client is to receive (above zero) or to deliver (below) of one asset, and from what
    that comes. `client_id` is empty for the venue's own account.
    """

    client_id: str
    asset: str
    received: Decimal
    delivered: Decimal
    fees: Decimal
    amount: Decimal

    def texts(self) -> tuple[str, ...]:
        """In the order of OBLIGATION_COLUMNS."""
        return (self.client_id, self.asset, *map(exact_text, self[2:]))


class Place(NamedTuple):
    """Of an obligation among those of its run, which are sorted by it."""

    client_id: str
    asset: str


FIRST_PLACE: Final = Place("", "")
"""Before those of all clients."""


def exact_text(amount: Decimal) -> str:
    """All digits that count: `0.5`, `-32500`, `0`."""
    text = f"{amount:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def runs(connection: Connection, limit: int, before: int | None = None) -> list[tuple[int, View]]:
    """Up to `limit` runs, newest first, those before number `before`; each with its number."""
    values = {"limit": limit, "before": before}
    found = connection.execute(_RUNS, values).fetchall()
    return [(row[0], _run_view(row[1:])) for row in found]


def report(
    connection: Connection, run_id: str, limit: int, after: Place = FIRST_PLACE
) -> tuple[View, Place | None] | None:
    """A run with up to `limit` of its clients' obligations, those after place `after`, and the
    place of the last of them if there are more; None: no such run. Before it is done, it has none.
    """
    # One moment for all statements, so that a report is never half of a run that is ending.
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        view = _run(connection, run_id)
        if view is None:
            return None
        is_done = view["status"] == "done"
        found = obligations(connection, run_id, limit + 1, after) if is_done else []
        view["instruments"] = _ranges(connection, run_id)
        view["fees"] = _fees(connection, run_id) if is_done else []
    view["obligations"] = [_obligation_view(each) for each in found[:limit]]
    following = Place(*found[limit - 1][:2]) if len(found) > limit else None
    return view, following


def obligations(
    connection: Connection, run_id: str, limit: int, after: Place = FIRST_PLACE
) -> list[Obligation]:
    """Up to `limit` of a run's clients, by client and asset, after place `after`."""
    values = {"run_id": run_id, "limit": limit, **after._asdict()}
    return [Obligation(*row) for row in connection.execute(_OBLIGATIONS, values).fetchall()]


def is_done(connection: Connection, run_id: str) -> bool | None:
    """Whether a run is over; None: no such run."""
    view = _run(connection, run_id)
    return None if view is None else bool(view["status"] == "done")


def csv_report(connection: Connection, run_id: str) -> Iterator[str]:
    """The report of a run that is done, in pieces: the venue's account, then the clients'."""
    yield csv_text([CSV_COLUMNS])
    venue = connection.execute(_VENUE, (run_id,)).fetchall()
    yield csv_text((run_id, VENUE, *Obligation(*row).texts()) for row in venue)
    for part in _all_obligations(connection, run_id):
        yield csv_text((run_id, CLIENT, *each.texts()) for each in part)


def csv_runs(views: Iterable[View]) -> str:
    """A list of runs."""
    rows = ([view[name] for name in RUN_COLUMNS] for view in views)
    return csv_text([RUN_COLUMNS, *rows])


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """As RFC 4180."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def json_report(connection: Connection, run_id: str) -> Iterator[str]:
    """The whole report of a run that is there, on one line."""
    ((every,),) = connection.execute(_COUNT, (run_id,)).fetchall()
    found = report(connection, run_id, max(1, every))
    assert found is not None, "it was there"
    yield msgspec.json.encode(found[0] | {"next_cursor": None}).decode() + "\n"


def text_report(connection: Connection, run_id: str) -> Iterator[str]:
    """The report of a run that is there, line by line, for a person."""
    found = report(connection, run_id, 1)
    assert found is not None, "it was there"
    view = found[0]
    yield f"settlement {run_id} {view['status']}: {view['trades']} trades\n"
    for each in view["instruments"]:
        sequences = f"{each['after_sequence'] + 1} to {each['up_to_sequence']}"
        yield f"{each['instrument']} sequences {sequences}: {each['trades']} trades\n"
    for fee in view["fees"]:
        yield f"venue {fee['asset']} {fee['amount']}\n"
    for part in _all_obligations(connection, run_id):
        for obligation in part:
            client_id, asset, *_, amount = obligation.texts()
            yield f"client {client_id} {asset} {amount}\n"


FORMATS: Final = {"text": text_report, "csv": csv_report, "json": json_report}
"""By the names that `python -m app settle` gives them; their pieces end their lines themselves."""


def _all_obligations(connection: Connection, run_id: str) -> Iterator[list[Obligation]]:
    after = FIRST_PLACE
    while part := obligations(connection, run_id, CSV_ROWS_PER_READ, after):
        yield part
        after = Place(*part[-1][:2])


def _run(connection: Connection, run_id: str) -> View | None:
    row = connection.execute(_RUN, (run_id,)).fetchone()
    return None if row is None else _run_view(row[1:])


def _run_view(row: tuple[object, ...]) -> View:
    view = dict(zip(RUN_COLUMNS, row, strict=True))
    for name in ("started_at", "finished_at"):
        moment = view[name]
        view[name] = None if moment is None else timestamp(microseconds(moment))  # type: ignore[arg-type]
    return view


def _ranges(connection: Connection, run_id: str) -> list[View]:
    names = ("instrument", "after_sequence", "up_to_sequence", "netted_sequence", "trades")
    found = connection.execute(_RANGES, (run_id,)).fetchall()
    return [dict(zip(names, row, strict=True)) for row in found]


def _fees(connection: Connection, run_id: str) -> list[View]:
    venue = [Obligation(*row) for row in connection.execute(_VENUE, (run_id,)).fetchall()]
    return [{"asset": each.asset, "amount": exact_text(each.amount)} for each in venue]


def _obligation_view(obligation: Obligation) -> View:
    return dict(zip(OBLIGATION_COLUMNS, obligation.texts(), strict=True))


_OF_RUN: Final = """
    SELECT number, run_id, instrument, status, started_at, finished_at, (
        SELECT coalesce(sum(trades), 0)::bigint FROM settlement_ranges AS r
        WHERE r.run_id = s.run_id
    )
    FROM settlements AS s
"""
_RUN: Final = f"{_OF_RUN} WHERE run_id = %s"
_RUNS: Final = f"""
    {_OF_RUN} WHERE number < coalesce(%(before)s, 9223372036854775807)
    ORDER BY number DESC LIMIT %(limit)s
"""
_RANGES: Final = """
    SELECT instrument, after_sequence, up_to_sequence, netted_sequence, trades
    FROM settlement_ranges WHERE run_id = %s ORDER BY instrument
"""
_COLUMNS: Final = ", ".join(OBLIGATION_COLUMNS)
_VENUE: Final = f"""
    SELECT {_COLUMNS} FROM settlement_obligations
    WHERE run_id = %s AND client_id = '' ORDER BY asset
"""  # noqa: S608  # constants
_COUNT: Final = "SELECT count(*) FROM settlement_obligations WHERE run_id = %s"
_OBLIGATIONS: Final = f"""
    SELECT {_COLUMNS} FROM settlement_obligations
    WHERE run_id = %(run_id)s AND (client_id, asset) > (%(client_id)s, %(asset)s)
        AND client_id <> ''
    ORDER BY client_id, asset LIMIT %(limit)s
"""  # noqa: S608  # constants
