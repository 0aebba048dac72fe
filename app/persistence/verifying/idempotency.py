"""Records of used idempotency keys against the orders that used them: each names an order of that
client, key and payload, and no key that may still be repeated has lost its record.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from app.domain.events import EventType, parse_order_line
from app.engine.inspection import PIECE, PIECE_EVENTS, Inspector, Value, sequence_of
from app.persistence.event_store import Connection, stored_events
from app.persistence.rows import UNREADABLE, microseconds
from app.persistence.verifying.findings import Findings

EXPIRING_S: Final = 60
"""Records so short of their end are not missed: they may go while we look."""
ORDERS_AT_ONCE: Final = PIECE // 2
"""Whose records are looked up together: in either generation."""


_RECORD: Final = re.compile(r"([0-9]{1,14})\|([^|]*)\|([0-9]{1,16})")


class _Record(NamedTuple):
    """Which order used a key, for what, and when, in µs since 1970."""

    number: int
    fingerprint: str
    time_us: str


class IdempotencyCheck:
    """Of one instrument."""

    def __init__(self, inspector: Inspector, connection: Connection, findings: Findings) -> None:
        self._inspector = inspector
        self._connection = connection
        self._findings = findings
        self._keys = (inspector.keys.idempotency_0, inspector.keys.idempotency_1)

    def check_records(self) -> None:
        """Each record that is there."""
        for key in self._keys:
            for _, elements in self._inspector.scan(key):
                records = iter(elements)
                while portion := list(islice(records, PIECE_EVENTS)):
                    self._check_portion(key, portion)

    def check_completeness(self, ttl_s: int, orders_max: int | None) -> None:
        """Each order that is written down and whose key may still be repeated has its record;
        `orders_max` are looked at, the newest, None: all.
        """
        since_us = self._inspector.clock_us() - (ttl_s - EXPIRING_S) * 1_000_000
        portions_max = None if orders_max is None else orders_max // ORDERS_AT_ONCE
        for portion in islice(self._orders_with_keys(since_us), portions_max):
            fields = [f"{client}|{key}" for _, client, key in portion]
            _, values = self._inspector.look_up(
                [(key, field) for field in fields for key in self._keys]
            )
            lost = [
                (number, field)
                for (number, _, _), field, *found in zip(
                    portion, fields, values[::2], values[1::2], strict=True
                )
                if not any(str(value).startswith(f"{number}|") for value in found)
            ]
            self._tell_lost(lost)

    def _check_portion(self, key: str, portion: list[tuple[str, Value]]) -> None:
        records = {field: _read(str(value)) for field, value in portion}
        events = self._events([record.number for record in records.values() if record])
        for field, value in portion:
            record = records[field]
            if record is None:
                why = f"is {value}, no record"
            else:
                why = _contradiction(field, record, events.get(record.number))
            if why:
                self._findings.breach("idempotency", f"{key} {field!r} {why}")

    def _events(self, numbers: list[int]) -> dict[int, dict[str, str]]:
        symbol = self._findings.instrument
        events = stored_events(self._connection, symbol, numbers)
        missing = [number for number in numbers if number not in events]
        for number in missing:
            found = self._inspector.entries(number, number)
            events |= {sequence_of(entry_id): fields for entry_id, fields in found}
        # An entry that is no longer in the stream has been written down.
        missing = [number for number in missing if number not in events]
        return events | (stored_events(self._connection, symbol, missing) if missing else {})

    def _tell_lost(self, lost: list[tuple[int, str]]) -> None:
        """But for orders whose event does not tell the fingerprint: a rebuild leaves those out."""
        events = self._events([number for number, _ in lost])
        for number, field in lost:
            if events.get(number, {}).get("detail"):
                self._findings.breach("idempotency", f"{field!r} of order {number} has no record")

    def _orders_with_keys(self, since_us: int) -> Iterator[list[tuple[int, str, str]]]:
        """Number, client and key, newest first."""
        statement = (
            "SELECT right(order_id, 14)::bigint, client_id, idempotency_key, created_at"
            " FROM orders WHERE instrument = %s ORDER BY created_at DESC, order_id DESC"
        )
        with (
            self._connection.transaction(),
            self._connection.cursor(name="orders_with_keys") as cursor,
        ):
            cursor.itersize = ORDERS_AT_ONCE
            rows = iter(cursor.execute(statement, (self._findings.instrument,)))
            while portion := list(islice(rows, ORDERS_AT_ONCE)):
                young = [row for row in portion if microseconds(row[3]) > since_us]
                yield [(number, client, key) for number, client, key, _ in young if key]
                if len(young) < len(portion):
                    return


def _read(text: str) -> _Record | None:
    found = _RECORD.fullmatch(text)
    return _Record(int(found[1]), found[2], found[3]) if found else None


def _contradiction(field: str, record: _Record, event: dict[str, str] | None) -> str:
    """Why a record is not that of its order's event; empty where it is."""
    number = record.number
    if event is None or event["type"] != EventType.PLACE:
        return f"names order {number}, which was never placed"
    try:
        order = parse_order_line(event["orders"].partition("\n")[0])
    except UNREADABLE:
        return f"names order {number}, whose event cannot be read"
    if f"{order.client_id}|{order.idempotency_key}" != field:
        return f"names order {number} of {order.client_id}|{order.idempotency_key}"
    if event.get("detail") and event["detail"] != record.fingerprint:
        return f"has the fingerprint {record.fingerprint}, event {number} {event['detail']}"
    if record.time_us != event["time"]:
        return f"has the time {record.time_us} us, event {number} {event['time']} us"
    return ""
