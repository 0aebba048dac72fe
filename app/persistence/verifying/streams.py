"""The stream, the persister's group and the position: whether they agree with each other, with the
event store and with the book.
"""

from app.domain.events import EVENT_FIELDS
from app.engine.inspection import Inspector, StreamEnds, sequence_of
from app.persistence.event_store import Connection, stored_events
from app.persistence.verifying.findings import Findings


def check_stream(inspector: Inspector, connection: Connection, findings: Findings) -> None:
    """Every entry that is there follows on the one before it, and is what Postgres has at its
    sequence, as far as Postgres has come.
    """
    expected, position = None, findings.position
    while entries := inspector.entries(expected or 0, None):
        stored = stored_events(
            connection, findings.instrument, [sequence_of(entry_id) for entry_id, _ in entries]
        )
        oldest = inspector.entries(0, None)[:1]
        if oldest and oldest[0][0] == entries[0][0]:
            expected = None  # what was before it has been trimmed meanwhile
        for entry_id, fields in entries:
            sequence = sequence_of(entry_id)
            if expected is not None and entry_id != f"{expected}-0":
                findings.breach("stream", f"entry {entry_id} comes where {expected}-0 should be")
            expected = sequence + 1
            ours = fields if "detail" in fields else fields | {"detail": ""}
            if sequence <= position and stored.get(sequence) != ours:
                findings.breach("stream", _difference(sequence, ours, stored.get(sequence)))


def _difference(sequence: int, ours: dict[str, str], stored: dict[str, str] | None) -> str:
    if stored is None:
        return f"event {sequence} is not in Postgres, whose position is beyond it"
    names = [name for name in (*EVENT_FIELDS, "detail") if ours.get(name) != stored[name]]
    names += sorted(ours.keys() - stored.keys())
    return f"event {sequence} is another one in Postgres: {', '.join(names)} differ"


def check_marks(ends: StreamEnds, findings: Findings, position_now: int) -> None:
    """What is told of how far everything is; `findings.position` was read before `ends`,
    `position_now` after it.
    """
    sequence, committed = ends.marks.sequence, ends.marks.committed
    if committed > position_now:
        findings.breach("position", f"committed {committed}, Postgres is at {position_now}")
    last = f"{sequence}-0" if sequence else ""
    if ends.last != last:
        findings.breach(
            "stream", f"the newest entry is {ends.last or None}, the book at {sequence}"
        )
        return
    if sequence:
        first = sequence_of(ends.first)
        if ends.length != sequence - first + 1:
            findings.breach("stream", f"{ends.length} entries from {first} to {sequence}")
        if first > committed + 1:
            findings.breach("stream", f"it begins at {first}, committed is {committed}")
    group = ends.group
    if group is None:
        if findings.position:
            findings.breach("position", "the stream has no consumer group of the persister")
    elif not findings.position <= group.delivered <= sequence:
        findings.breach(
            "position", f"delivered {group.delivered}, position {findings.position} of {sequence}"
        )
