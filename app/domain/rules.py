"""The rules of an instrument that may change while it is traded: status, band, limits, fees.

They are fields of the book's hash, so that a change holds from the very next command on; an unset
rule has no field. `lua/RULES.md` says what each does (BND, RSK, STA).
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum

import msgspec


class InstrumentStatus(StrEnum):
    """What a book takes at present."""

    OPEN = "open"
    CANCEL_ONLY = "cancel_only"
    HALTED = "halted"


class Rules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Rules in the book's units; None: no limit. The fields are those of the book's hash."""

    status: str = InstrumentStatus.OPEN
    price_band_bps: int | None = None
    """Basis points around the last price that prices must lie within."""
    max_order_lots: int | None = None
    max_order_notional: int | None = None
    """Ticks x lots."""
    max_open_orders: int | None = None
    """Of one client."""
    maker_fee_bps: Decimal = Decimal(0)
    taker_fee_bps: Decimal = Decimal(0)
    """Basis points of a trade's notional; negative: a rebate."""


RULE_FIELDS = Rules.__struct_fields__


def rule_texts(rules: Rules) -> dict[str, str]:
    """Field -> text as the book keeps it; empty text where the field is not to be there."""
    texts: dict[str, str] = {}
    for name in RULE_FIELDS:
        value = getattr(rules, name)
        texts[name] = "" if value is None else f"{value:f}" if name.endswith("fee_bps") else value
    return {name: str(text) for name, text in texts.items()}


def parse_rules(fields: Mapping[str, str | None]) -> Rules:
    """Rules from the book's fields; what is missing or None is unset.

    Raises:
        ValueError, decimal.InvalidOperation: a field is not what `rule_texts` writes.
    """

    def whole(name: str) -> int | None:
        text = fields.get(name)
        return int(text) if text else None

    return Rules(
        status=InstrumentStatus(fields.get("status") or InstrumentStatus.OPEN),
        price_band_bps=whole("price_band_bps"),
        max_order_lots=whole("max_order_lots"),
        max_order_notional=whole("max_order_notional"),
        max_open_orders=whole("max_open_orders"),
        maker_fee_bps=Decimal(fields.get("maker_fee_bps") or 0),
        taker_fee_bps=Decimal(fields.get("taker_fee_bps") or 0),
    )


def rules_detail(rules: Rules) -> str:
    """The `detail` of a `rules` event: `field=value` separated by spaces, of all that are set."""
    return " ".join(f"{name}={text}" for name, text in rule_texts(rules).items() if text)


def parse_rules_detail(detail: str) -> Rules:
    """Rules from what `rules_detail` writes."""
    return parse_rules(dict(part.split("=", 1) for part in detail.split()))
