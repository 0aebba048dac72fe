"""Why a command is refused by the book: one enum, held against the Lua by a test.

A refusal is data, not an error: nothing was written, no sequence was taken.
"""

from enum import StrEnum


class Refusal(StrEnum):
    """Codes that the scripts return, in the order in which place_order checks them."""

    BOOK_MISSING = "book_missing"
    """Redis holds no book of that instrument (never listed, or Redis lost its data)."""
    SCHEMA_MISMATCH = "schema_mismatch"
    """The book was written by another version of the layout."""
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    BACKLOG_FULL = "backlog_full"
    """Postgres is too far behind; nothing more is taken that it would have to store."""
    INSTRUMENT_HALTED = "instrument_halted"
    """The persister found that Redis and Postgres disagree; an operator has to look."""
    DUPLICATE_CLIENT_ORDER_ID = "duplicate_client_order_id"
    POST_ONLY_WOULD_CROSS = "post_only_would_cross"
    LEVEL_QUANTITY_OVERFLOW = "level_quantity_overflow"
    """The price level's total would no longer be an exact integer (2^53 lots)."""
    ORDER_NOT_FOUND = "order_not_found"
    ORDER_NOT_OPEN = "order_not_open"


class Reason(StrEnum):
    """Why an accepted order ended without being filled: the `reason` of a cancelled order."""

    CANCELLED_BY_CLIENT = "cancelled_by_client"
    IOC_REMAINDER = "ioc_remainder"
    NO_LIQUIDITY = "no_liquidity"
    FOK_UNFILLED = "fok_unfilled"
    FILL_LIMIT = "fill_limit"
    """The command met the limit of fills per command while the book still crossed."""
