"""Why an instrument is no longer persisted. Nothing of it is skipped or overwritten meanwhile."""

from typing import Final

import msgspec

CODES: Final = {
    # Found while looking where things stand.
    "instrument_unreadable": "what the hash `instruments` says of it cannot be read",
    "instrument_differs": "Postgres has another tick or lot size",
    "redis_behind": "Postgres has events that this Redis never had: Redis lost some",
    "diverged": "Redis and Postgres have different events: Redis went back in time",
    # Found while reading.
    "gap": "an entry is missing from the stream",
    "poison": "an entry cannot be read",
    "refused": "Postgres refuses the entry's rows",
}
FOUND_BEFORE_READING: Final = frozenset(
    {"instrument_unreadable", "instrument_differs", "redis_behind", "diverged"}
)


class Halt(msgspec.Struct, frozen=True):
    """One instrument's halt: `sequence` is the first event that is affected."""

    instrument: str
    sequence: int
    code: str
    detail: str


class Halted(Exception):
    """Carries a Halt."""

    def __init__(self, halt: Halt) -> None:
        super().__init__(halt.detail)
        self.halt = halt
