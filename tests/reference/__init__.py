"""An independent matcher for one instrument, written to be read and believed rather than to be
fast, from lua/RULES.md alone. It is the other half of the differential tests and shares no code
with the product: it must never import `app`. Integers only; time is what the commands say.

`book` executes commands; `checks` refuses; `matching` says who is met; `queues` and `state` keep
orders; `orders` is what is told; `text` is the digest; `proof` holds a book against its history.
"""

from tests.reference.book import ReferenceBook
from tests.reference.matching import LEVEL_TOTAL_LIMIT_LOTS
from tests.reference.orders import (
    Amended,
    Answer,
    Cancelled,
    Done,
    Event,
    EventType,
    LevelChange,
    MassCancelled,
    Order,
    Placed,
    Refused,
    Status,
    Swept,
    Ticked,
    Trade,
)
from tests.reference.state import (
    MAX_CANCELS,
    MAX_EXPIRIES,
    MAX_FILLS,
    MAX_TRIGGERS,
    START_US,
)

MAX_FILLS_PER_COMMAND = MAX_FILLS  # its name before stops shared it

__all__ = [
    "LEVEL_TOTAL_LIMIT_LOTS",
    "MAX_CANCELS",
    "MAX_EXPIRIES",
    "MAX_FILLS",
    "MAX_FILLS_PER_COMMAND",
    "MAX_TRIGGERS",
    "START_US",
    "Amended",
    "Answer",
    "Cancelled",
    "Done",
    "Event",
    "EventType",
    "LevelChange",
    "MassCancelled",
    "Order",
    "Placed",
    "ReferenceBook",
    "Refused",
    "Status",
    "Swept",
    "Ticked",
    "Trade",
]
