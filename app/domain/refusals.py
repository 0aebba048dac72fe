"""Why a command is refused by the book: one enum, held against the Lua by a test.

A refusal is data, not an error: nothing was written, no sequence was taken.
"""

from enum import StrEnum


class Refusal(StrEnum):
    """Codes that the scripts return, roughly in the order in which they are checked."""

    BOOK_MISSING = "book_missing"
    """Redis holds no book of that instrument (never listed, or Redis lost its data)."""
    SCHEMA_MISMATCH = "schema_mismatch"
    """The book was written by another version of the layout."""
    BOOK_BEHIND = "book_behind"
    """The book lacks what was acknowledged: its Redis went back in time. It takes nothing more
    until an operator has rebuilt it.
    """
    BOOK_CHANGED = "book_changed"
    """The book was rebuilt since the caller heard of it last, who asks again by what it is now."""
    TOO_LATE = "too_late"
    """Redis came to the command when its caller had given it up."""
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    BACKLOG_FULL = "backlog_full"
    """Postgres is too far behind; nothing more is taken that it would have to store."""
    INSTRUMENT_HALTED = "instrument_halted"
    """By an operator; or by the persister, which found that Redis and Postgres disagree."""
    CANCEL_ONLY = "cancel_only"
    KILL_SWITCH = "kill_switch"
    EXPIRES_IN_PAST = "expires_in_past"
    DUPLICATE_CLIENT_ORDER_ID = "duplicate_client_order_id"
    RISK_LIMIT = "risk_limit"
    """Above the instrument's greatest quantity, notional or number of a client's open orders."""
    PRICE_BAND = "price_band"
    TRIGGERS_OUTSTANDING = "triggers_outstanding"
    """More stops were triggered than one command carries out; no new stop price until they are."""
    STOP_WOULD_TRIGGER = "stop_would_trigger"
    POST_ONLY_WOULD_CROSS = "post_only_would_cross"
    LEVEL_QUANTITY_OVERFLOW = "level_quantity_overflow"
    """The price level's total would no longer be an exact integer (2^53 lots)."""
    TIMER_DUE = "timer_due"
    """The cancel-after timer ran out; it can be set again when it has fired."""
    ORDER_NOT_FOUND = "order_not_found"
    ORDER_NOT_OPEN = "order_not_open"
    NOT_AMENDABLE = "not_amendable"
    AMEND_BELOW_FILLED = "amend_below_filled"


class Reason(StrEnum):
    """Why an accepted order ended without being filled: the `reason` of an order."""

    CANCELLED_BY_CLIENT = "cancelled_by_client"
    CANCELLED_ON_DISCONNECT = "cancelled_on_disconnect"
    CANCEL_AFTER = "cancel_after"
    """Its client's dead-man timer ran out."""
    KILL_SWITCH = "kill_switch"
    EXPIRED = "expired"
    IOC_REMAINDER = "ioc_remainder"
    NO_LIQUIDITY = "no_liquidity"
    FOK_UNFILLED = "fok_unfilled"
    FILL_LIMIT = "fill_limit"
    """The command met the limit of makers per command while the book still crossed."""
    PRICE_BAND = "price_band"
    SELF_TRADE_PREVENTED = "self_trade_prevented"
    LEVEL_QUANTITY_OVERFLOW = "level_quantity_overflow"
    """Of a triggered stop only: a new order is refused for it."""
