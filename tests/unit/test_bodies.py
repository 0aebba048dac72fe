"""Which orders and amendments are fit for the book, and what is said of the others: field by field,
in ticks, lots and microseconds.
"""

import json
from decimal import Decimal
from typing import Any

import pytest

from app.api.bodies import check_changes, check_order, decode_changes, decode_order
from app.api.fields import Errors, read_time
from app.api.problems import Problem
from app.domain.instruments import Market, list_instrument
from app.engine.commands import Amendment, NewOrder, OrderNumber

MARKET = Market(list_instrument("AAA-USD", Decimal("0.5"), Decimal("0.1")))
TARGET = OrderNumber(7)
EXPIRY = "2030-01-01T00:00:00Z"
EXPIRY_US = 1_893_456_000_000_000
Fields = dict[str, Any]

LIMIT: Fields = {"type": "limit", "price": "10"}
MARKET_ORDER: Fields = {"type": "market"}
STOP: Fields = {"type": "stop", "stop_price": "11"}
STOP_LIMIT: Fields = {"type": "stop_limit", "price": "10", "stop_price": "11"}
GTD: Fields = {"time_in_force": "gtd", "expires_at": EXPIRY}


def checked(**fields: object) -> NewOrder:
    body = {"instrument": MARKET.symbol, "side": "buy", "quantity": "2"} | fields
    return check_order(decode_order(json.dumps(body).encode()), MARKET, None)


def wrong(**fields: object) -> dict[str, str]:
    """Field -> code of each that is wrong."""
    with pytest.raises(Problem) as caught:
        checked(**fields)
    assert (caught.value.status, caught.value.code) == (400, "validation_failed")
    assert caught.value.errors is not None
    named = {error.field: error.code for error in caught.value.errors}
    assert len(named) == len(caught.value.errors), "one error for each field"
    return named


@pytest.mark.parametrize(
    "fields",
    [
        *(LIMIT | {"time_in_force": tif} for tif in ("gtc", "ioc", "fok", None)),
        *(MARKET_ORDER | {"time_in_force": tif} for tif in ("ioc", "fok", None)),
        *(STOP | {"time_in_force": tif} for tif in ("gtc", "ioc", "fok", None)),
        *(STOP_LIMIT | {"time_in_force": tif} for tif in ("gtc", "ioc", "fok", None)),
        *(order | GTD for order in (LIMIT, STOP, STOP_LIMIT)),
        *(LIMIT | tif | {"post_only": True} for tif in ({}, GTD)),
        *(o | t | {"display_quantity": "0.1"} for o in (LIMIT, STOP_LIMIT) for t in ({}, GTD)),
        LIMIT | {"post_only": True, "display_quantity": 2},
    ],
    ids=str,
)
def test_every_combination_that_makes_sense_is_taken(fields: Fields) -> None:
    order = checked(**fields)
    assert (order.type, order.quantity_lots) == (fields["type"], 20)
    assert order.time_in_force == (
        fields.get("time_in_force") or ("ioc" if fields["type"] == "market" else "gtc")
    )
    assert order.price_ticks == (20 if "price" in fields else None)
    assert order.stop_price_ticks == (22 if "stop_price" in fields else None)
    assert order.expires_us == (EXPIRY_US if "expires_at" in fields else None)
    assert order.display_lots == {"0.1": 1, 2: 20, None: None}[fields.get("display_quantity")]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (LIMIT | {"price": None}, {"price": "required"}),
        (LIMIT | {"stop_price": "11"}, {"stop_price": "not_allowed"}),
        (MARKET_ORDER | {"price": "10"}, {"price": "not_allowed"}),
        (MARKET_ORDER | {"stop_price": "10"}, {"stop_price": "not_allowed"}),
        (MARKET_ORDER | {"time_in_force": "gtc"}, {"time_in_force": "invalid_value"}),
        (MARKET_ORDER | GTD, {"time_in_force": "invalid_value"}),
        (MARKET_ORDER | {"post_only": True}, {"post_only": "invalid_value"}),
        (MARKET_ORDER | {"display_quantity": "1"}, {"display_quantity": "not_allowed"}),
        (STOP | {"price": "10"}, {"price": "not_allowed"}),
        (STOP | {"stop_price": None}, {"stop_price": "required"}),
        (STOP | {"stop_price": "11.2"}, {"stop_price": "off_tick"}),
        (STOP | {"display_quantity": "1"}, {"display_quantity": "not_allowed"}),
        (STOP | {"post_only": True}, {"post_only": "invalid_value"}),
        (STOP_LIMIT | {"price": None}, {"price": "required"}),
        (STOP_LIMIT | {"stop_price": None}, {"stop_price": "required"}),
        (STOP_LIMIT | {"post_only": True}, {"post_only": "invalid_value"}),
        *(
            (LIMIT | {"time_in_force": tif, field: value}, {field: code})
            for tif in ("ioc", "fok")
            for field, value, code in (
                ("post_only", True, "invalid_value"),
                ("display_quantity", "1", "not_allowed"),
                ("expires_at", EXPIRY, "not_allowed"),
            )
        ),
        (LIMIT | {"display_quantity": "2.1"}, {"display_quantity": "out_of_range"}),
        (LIMIT | {"display_quantity": "0"}, {"display_quantity": "not_positive"}),
        (LIMIT | {"display_quantity": "0.15"}, {"display_quantity": "off_lot"}),
        (LIMIT | {"expires_at": EXPIRY}, {"expires_at": "not_allowed"}),
        (LIMIT | {"time_in_force": "gtd"}, {"expires_at": "required"}),
        (LIMIT | GTD | {"expires_at": "tomorrow"}, {"expires_at": "invalid_value"}),
        (
            STOP_LIMIT | {"price": "0", "stop_price": "x", "quantity": "-1", "post_only": True},
            {
                "price": "not_positive",
                "stop_price": "malformed_number",
                "quantity": "not_positive",
                "post_only": "invalid_value",
            },
        ),
    ],
    ids=str,
)
def test_every_field_that_does_not_fit_is_named_once(fields: Fields, named: Fields) -> None:
    assert wrong(**fields) == named


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2030-01-01T00:00:00Z", EXPIRY_US),
        ("2030-01-01t00:00:00z", EXPIRY_US),
        ("2030-01-01T01:30:00+01:30", EXPIRY_US),
        ("2029-12-31T19:00:00.000000-05:00", EXPIRY_US),
        ("2030-01-01T00:00:00.000001Z", EXPIRY_US + 1),
        ("2030-01-01T00:00:00.1Z", EXPIRY_US + 100_000),
        ("1969-12-31T23:59:59Z", -1_000_000),
        ("2255-06-05T23:47:34.740991Z", 2**53 - 1),
    ],
)
def test_a_time_is_read_to_the_microsecond(text: str, time_us: int) -> None:
    errors: Errors = []
    assert read_time("expires_at", text, errors) == time_us
    assert not errors


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *(
            (text, "invalid_value")
            for text in (
                *("", "now", "1893456000", "2030-01-01", "2030-01-01T00:00:00", "20300101T000000Z"),
                *("2030-01-01 00:00:00Z", "2030-01-01T00:00Z", "2030-01-01T00:00:00.Z"),
                *("2030-01-01T00:00:00.0000001Z", "2030-01-01T00:00:00,1Z", "2030-02-30T00:00:00Z"),
                *("2030-01-01T25:00:00Z", "2030-01-01T00:00:60Z", "2030-01-01T00:00:00+0100"),
                *("2030-01-01T00:00:00+24:00", "0000-01-01T00:00:00Z", " 2030-01-01T00:00:00Z"),
                *(
                    "2030-01-01T00:00:00Z\n",
                    "2030-W01-1T00:00:00Z",
                    "\N{FULLWIDTH DIGIT TWO}030-01-01T00:00:00Z",
                ),
            )
        ),
        ("2255-06-05T23:47:34.740992Z", "out_of_range"),
        ("9999-12-31T23:59:59-23:59", "out_of_range"),
    ],
)
def test_what_is_no_time_is_refused(text: str, code: str) -> None:
    errors: Errors = []
    assert read_time("expires_at", text, errors) is None
    assert [(error.field, error.code) for error in errors] == [("expires_at", code)]


def fingerprint(**fields: object) -> str:
    return checked(idempotency_key="k", **LIMIT | fields).fingerprint


def test_a_payload_is_the_same_however_it_is_spelled() -> None:
    """The same order spelled otherwise; and every field that differs makes another payload."""
    assert fingerprint(price="10.0", self_trade_prevention="none", stop_price=None) == fingerprint()
    assert fingerprint(**GTD) == fingerprint(**GTD | {"expires_at": "2030-01-01T01:00:00.0+01:00"})
    others = [
        fingerprint(**fields)
        for fields in (
            {},
            {"display_quantity": "1"},
            {"self_trade_prevention": "decrement"},
            GTD,
            GTD | {"expires_at": "2030-01-01T00:00:00.000001Z"},
            STOP_LIMIT,
            STOP_LIMIT | {"stop_price": "12"},
        )
    ]
    assert len({fingerprint(), *others}) == len(others)


def test_a_payload_of_before_stops_has_its_fingerprint_still() -> None:
    """Keys that were used before the update are repeated after it."""
    assert fingerprint() == "sNXgMsSKLwY"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"price": "11"}, Amendment(target=TARGET, price_ticks=22)),
        ({"quantity": 3}, Amendment(target=TARGET, quantity_lots=30)),
        ({"stop_price": "9.5"}, Amendment(target=TARGET, stop_price_ticks=19)),
        (
            {"price": "11", "quantity": "3", "stop_price": None},
            Amendment(target=TARGET, price_ticks=22, quantity_lots=30),
        ),
    ],
)
def test_an_amendment_changes_what_is_given(fields: Fields, expected: Amendment) -> None:
    changes = decode_changes(json.dumps(fields).encode())
    assert check_changes(changes, TARGET, MARKET) == expected


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, {"body": "required"}),
        ({"price": None}, {"body": "required"}),
        ({"price": "1.2", "quantity": "0"}, {"price": "off_tick", "quantity": "not_positive"}),
        ({"stop_price": [1]}, {"stop_price": "invalid_type"}),
        ({"side": "buy", "price": "1"}, {"side": "unknown_field"}),
    ],
)
def test_what_is_wrong_with_an_amendment_is_named(fields: Fields, named: Fields) -> None:
    with pytest.raises(Problem) as caught:
        check_changes(decode_changes(json.dumps(fields).encode()), TARGET, MARKET)
    assert {error.field: error.code for error in caught.value.errors or ()} == named
