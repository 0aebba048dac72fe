"""What can be computed from the event store, and the same once more in a schema of its own: made,
compared with the live tables, and put in their place row by row. Must not know how events become
rows; a new read model is one more line of READ_MODELS.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, LiteralString, NamedTuple

from psycopg import sql

from app.persistence.event_store import (
    CANDLE_COLUMNS,
    CANDLE_KEY,
    ORDER_COLUMNS,
    POSITION_COLUMNS,
    POSITION_KEY,
    TRADE_COLUMNS,
    Connection,
)
from app.persistence.instruments import RULE_COLUMNS

SCHEMA: Final = "crossbook_replay"
"""Where the computed tables are while a replay runs. Nobody else's: it is dropped without asking.
"""
EXAMPLES: Final = 5
"""Differing rows that a report names, of each table and instrument."""
REPAIRED_AT_ONCE: Final = 2_000
"""Rows that one transaction repairs: the persister waits for it, some hundredths of a second."""


class ReadModel(NamedTuple):
    """A table that the events determine. `columns` are compared and repaired; `instrument` is the
    column that names the instrument.
    """

    table: LiteralString
    key: tuple[LiteralString, ...]
    columns: tuple[str, ...]
    instrument: LiteralString = "instrument"

    @property
    def computed(self) -> sql.Identifier:
        """The table that was computed."""
        return sql.Identifier(SCHEMA, self.table)

    @property
    def differing(self) -> sql.Identifier:
        """Where the keys of rows that differ are noted."""
        return sql.Identifier(SCHEMA, f"{self.table}_differing")


READ_MODELS: Final = (
    ReadModel("orders", ("order_id",), tuple(ORDER_COLUMNS)),
    ReadModel("trades", ("trade_id",), tuple(TRADE_COLUMNS)),
    ReadModel("positions", POSITION_KEY, tuple(POSITION_COLUMNS)),
    ReadModel("candles", CANDLE_KEY, tuple(CANDLE_COLUMNS)),
    # The rules as of the position; the sizes are nothing that events tell.
    ReadModel("instruments", ("symbol",), tuple(RULE_COLUMNS), "symbol"),
)


class Difference(NamedTuple):
    """Rows of one table and instrument that are not as the events say. `examples` are keys, each
    with `is missing`, `is too many` or `differs`.
    """

    table: str
    instrument: str
    rows: int
    examples: tuple[str, ...]


def make_tables(connection: Connection) -> None:
    """Empty tables to compute into; what an earlier replay left is dropped."""
    drop_tables(connection)
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
    for model in READ_MODELS:
        # Unlogged: of no use after a crash. Of the indexes only the key: the others serve readers.
        connection.execute(
            sql.SQL(
                "CREATE UNLOGGED TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING GENERATED"
                " INCLUDING CONSTRAINTS, PRIMARY KEY ({}))"
            ).format(model.computed, sql.Identifier(model.table), _names(model.key))
        )


def drop_tables(connection: Connection) -> None:
    """Leave nothing behind."""
    connection.execute("SET client_min_messages = warning")  # what it drops is no news
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCHEMA)))


@contextmanager
def computing(connection: Connection) -> Iterator[None]:
    """A transaction, or a part of one, in which the names of read models mean the computed ones."""
    with connection.transaction():
        found = connection.execute("SELECT current_setting('search_path')").fetchone()
        assert found is not None
        connection.execute("SELECT set_config('search_path', %s, true)", (f"{SCHEMA}, {found[0]}",))
        yield
        connection.execute("SELECT set_config('search_path', %s, true)", found)


def compare(connection: Connection, apart_from: Sequence[str]) -> list[Difference]:
    """Note and report every row that differs, of all instruments but those."""
    return [
        difference
        for model in READ_MODELS
        for difference in _compare(connection, model, list(apart_from))
    ]


def _compare(
    connection: Connection, model: ReadModel, apart_from: list[str]
) -> Iterable[Difference]:
    """One pass over both tables, joined by their key."""
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(model.differing))
    connection.execute(sql.SQL("ANALYZE {}").format(model.computed))
    connection.execute(
        sql.SQL(
            "CREATE UNLOGGED TABLE {differing} AS"
            " SELECT row_number() OVER (ORDER BY {key}) AS n, {key},"
            " coalesce(c.{instrument}, l.{instrument}) AS of_instrument,"
            " CASE WHEN l.{instrument} IS NULL THEN 'is missing'"
            " WHEN c.{instrument} IS NULL THEN 'is too many' ELSE 'differs' END AS how"
            " FROM {computed} AS c FULL JOIN {live} AS l USING ({key})"
            " WHERE (({computed_columns}) IS DISTINCT FROM ({live_columns})"
            " OR c.{instrument} IS NULL OR l.{instrument} IS NULL)"
            " AND coalesce(c.{instrument}, l.{instrument}) <> ALL({apart_from})"
        ).format(
            differing=model.differing,
            key=_names(model.key),
            instrument=sql.Identifier("instrument_of_row"),
            computed=_source(model, model.computed),
            live=_source(model, sql.Identifier(model.table)),
            computed_columns=_names(model.columns, "c"),
            live_columns=_names(model.columns, "l"),
            apart_from=sql.Literal(apart_from),
        )
    )
    found = connection.execute(
        sql.SQL(
            "SELECT of_instrument, count(*),"
            " (array_agg(concat_ws(' ', {key}, how) ORDER BY n))[:{examples}]"
            " FROM {differing} GROUP BY of_instrument ORDER BY of_instrument"
        ).format(
            key=_names(model.key),
            examples=sql.Literal(EXAMPLES),
            differing=model.differing,
        )
    )
    return [
        Difference(model.table, symbol, rows, tuple(examples))
        for symbol, rows, examples in found.fetchall()
    ]


def repair_steps(connection: Connection) -> Iterator[tuple[ReadModel, int]]:
    """The repairs that `compare` found to be needed: a model, and where its next rows begin."""
    for model in READ_MODELS:
        found = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(model.differing))
        ((rows,),) = found.fetchall()
        for first in range(1, rows + 1, REPAIRED_AT_ONCE):
            yield model, first


def repair(connection: Connection, model: ReadModel, first: int) -> int:
    """Make the live rows of one step what the computed ones are now, within the transaction of a
    caller who has caught up and keeps the persister out. Returns how many had to be changed.
    """
    parts = {
        "live": sql.Identifier(model.table),
        "computed": model.computed,
        "differing": model.differing,
        "key": _names(model.key),
        "columns": _names(model.columns),
        "of_computed": _names(model.columns, "c"),
        "of_live": _names(model.columns, "l"),
        "same_computed": _same(model.key, "c", "d"),
        "same_live": _same(model.key, "l", "d"),
        "same_both": _same(model.key, "l", "c"),
        "step": sql.SQL("d.n >= {} AND d.n < {}").format(first, first + REPAIRED_AT_ONCE),
    }
    return sum(
        connection.execute(sql.SQL(statement).format(**parts)).rowcount
        for statement in (_DELETE, _UPDATE, _INSERT)
    )


_DELETE: Final = (
    "DELETE FROM {live} AS l USING {differing} AS d WHERE {step} AND {same_live}"
    " AND NOT EXISTS (SELECT FROM {computed} AS c WHERE {same_computed})"
)
_UPDATE: Final = (
    "UPDATE {live} AS l SET ({columns}) = ROW ({of_computed})"
    " FROM {computed} AS c, {differing} AS d"
    " WHERE {step} AND {same_computed} AND {same_live}"
    " AND ({of_computed}) IS DISTINCT FROM ({of_live})"
)
_INSERT: Final = (
    "INSERT INTO {live} ({columns}) SELECT {of_computed} FROM {computed} AS c"
    " JOIN {differing} AS d ON {same_computed} WHERE {step}"
    " AND NOT EXISTS (SELECT FROM {live} AS l WHERE {same_both})"
)


def _source(model: ReadModel, table: sql.Identifier) -> sql.Composed:
    """A table, with its instrument under a name that is never a part of a key."""
    return sql.SQL("(SELECT *, {} AS instrument_of_row FROM {})").format(
        sql.Identifier(model.instrument), table
    )


def _names(columns: Iterable[str], table: str | None = None) -> sql.Composed:
    names = [sql.Identifier(table, name) if table else sql.Identifier(name) for name in columns]
    return sql.SQL(", ").join(names)


def _same(key: Iterable[str], one: str, other: str) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(one, name), sql.Identifier(other, name))
        for name in key
    )
