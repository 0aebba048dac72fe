"""What an audit found: breaches, counted all and kept in part, for people and for machines."""

from collections.abc import Iterator
from typing import Final

import msgspec

BREACHES_KEPT: Final = 50
"""Of one instrument; a book that is all wrong has millions."""


class Breach(msgspec.Struct, frozen=True):
    """One thing that is not as it must be. `code` is stable: one of CODES."""

    code: str
    detail: str


CODES: Final = {
    "book_missing": "Redis has no book of an instrument",
    "schema_mismatch": "the book is of another layout",
    "redis_behind": "the book lacks events that Postgres has",
    "halted": "the instrument is halted, suspended or fenced",
    "listing": "the hash instruments and the table of that name disagree",
    "moved": "the book went back or away during the audit",
    "event": "an event does not follow on those before it",
    "event_store": "the table events is not exactly the sequences up to the position",
    "snapshot": "a snapshot's digest is not that of its events",
    "book": "a key of the book is not what its events say",
    "stream": "the stream has gaps, or other events than Postgres",
    "position": "committed, position, group and sequence contradict each other",
    "idempotency": "a used key's record and its order contradict each other",
    "orders": "the table orders is not what the events or the trades say",
    "positions": "the table positions is not what the trades say",
    "candles": "the table candles is not what the trades say",
    "conservation": "what was bought is not what was sold",
    "settlements": "settlements are not what the trades say, or not all of them",
}


class Findings(msgspec.Struct):
    """Of one instrument. `sequence`, `orders` (open ones) and `digest` are those of the book up to
    which everything was compared; `digest` is empty where it could not be.
    """

    instrument: str
    sequence: int = 0
    position: int = 0
    orders: int = 0
    digest: str = ""
    breaches: list[Breach] = []
    breaches_total: int = 0

    def breach(self, code: str, detail: str) -> None:
        """Take note of one."""
        assert code in CODES, code
        self.breaches_total += 1
        if len(self.breaches) < BREACHES_KEPT:
            self.breaches.append(Breach(code, detail))

    def lines(self) -> Iterator[str]:
        """For a person."""
        yield (
            f"{self.instrument} sequence {self.sequence} position {self.position}"
            f" orders {self.orders} digest {self.digest or '-'}"
        )
        for breach in self.breaches:
            yield f"{self.instrument} BREACH {breach.code}: {breach.detail}"
        more = self.breaches_total - len(self.breaches)
        if more:
            yield f"{self.instrument} and {more} more breaches"


class Report(msgspec.Struct):
    """Of all instruments. `breaches` are those of no single one."""

    instruments: list[Findings]
    breaches: list[Breach] = []

    @property
    def breaches_total(self) -> int:
        """0: everything is as it must be."""
        of_instruments = sum(findings.breaches_total for findings in self.instruments)
        return of_instruments + len(self.breaches)

    def lines(self) -> Iterator[str]:
        """For a person."""
        for findings in self.instruments:
            yield from findings.lines()
        for breach in self.breaches:
            yield f"all BREACH {breach.code}: {breach.detail}"
        count, events = len(self.instruments), sum(one.sequence for one in self.instruments)
        verdict = f"{self.breaches_total} BREACHES" if self.breaches_total else "no breach"
        yield f"verified {count} instruments, {events} events: {verdict}"

    def json(self) -> str:
        """For a machine: the same in one object."""
        document = {"breaches_total": self.breaches_total, **msgspec.structs.asdict(self)}
        return msgspec.json.encode(document).decode()
