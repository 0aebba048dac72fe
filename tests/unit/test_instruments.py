"""Decimals in and out: exact, or refused."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.instruments import (
    DEFAULT_INSTRUMENTS,
    EXACT_LIMIT,
    InvalidInstrument,
    InvalidNumber,
    Market,
    Scale,
    list_instrument,
    parse_decimal,
)

CENTS = Scale(Decimal("0.01"), EXACT_LIMIT - 1)
NICKELS = Scale(Decimal("0.05"), EXACT_LIMIT - 1)


@pytest.mark.parametrize(
    "text",
    ["NaN", "Infinity", "-Infinity", "inf", "1_000", " 1", "1 ", "+1", "01", ".5", "5.", "0x10",
     "", "1e", "e1", "٣", "1,5", "1e1000", "--1", "1\n"],
)  # fmt: skip
def test_what_json_does_not_call_a_number_is_none(text: str) -> None:
    with pytest.raises(InvalidNumber) as caught:
        parse_decimal(text)
    assert caught.value.code == "malformed_number"


def test_too_many_digits() -> None:
    with pytest.raises(InvalidNumber) as caught:
        parse_decimal("0." + "1" * 39)
    assert caught.value.code == "too_many_digits"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("0.001", "off_tick"),
        ("0.10000000000000000000000000000000001", "off_tick"),
        ("0", "not_positive"),
        ("-0", "not_positive"),
        ("-1", "not_positive"),
        ("1e999", "out_of_range"),
        ("1e-999", "out_of_range"),
        ("90071992547409.92", "out_of_range"),
    ],
)
def test_a_number_off_its_steps_is_refused_never_rounded(text: str, code: str) -> None:
    with pytest.raises(InvalidNumber) as caught:
        CENTS.to_units(parse_decimal(text), "tick")
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "ticks"),
    [("0.1", 10), ("0.10", 10), ("1e2", 10_000), ("1.5E-1", 15), ("90071992547409.91", 2**53 - 1)],
)
def test_every_spelling_of_a_number_is_the_same_number(text: str, ticks: int) -> None:
    assert CENTS.to_units(parse_decimal(text), "tick") == ticks


@given(st.integers(1, EXACT_LIMIT - 1), st.sampled_from(["0.01", "0.05", "1", "25", "0.00000001"]))
def test_out_and_in_again_is_the_same(units: int, step: str) -> None:
    scale = Scale(Decimal(step), EXACT_LIMIT - 1)
    text = scale.format(units)
    assert Decimal(text) == units * Decimal(step)
    assert scale.to_units(parse_decimal(text), "tick") == units
    assert len(text.partition(".")[2]) == scale.decimals


@given(st.integers(0, 10**32), st.integers(1, EXACT_LIMIT - 1))
def test_an_average_is_rounded_half_to_even(notional: int, filled: int) -> None:
    exact = Decimal(notional) * 5 / Decimal(filled)
    told = Decimal(NICKELS.format_ratio(notional, filled))
    numerator, denominator = told.as_integer_ratio()
    distance = abs(numerator * 100 * filled - notional * 5 * denominator)
    assert 2 * distance <= filled * denominator, (exact, told)


def test_half_goes_to_the_even_neighbour() -> None:
    assert [CENTS.format_ratio(n, 2) for n in (1, 3, 5)] == ["0.00", "0.02", "0.02"]


@pytest.mark.parametrize("instrument", DEFAULT_INSTRUMENTS, ids=lambda i: i.symbol)
def test_what_is_listed_by_default_stays_exact(instrument: object) -> None:
    market = Market(instrument)  # type: ignore[arg-type]
    assert market.price.limit < EXACT_LIMIT
    assert market.quantity.limit < EXACT_LIMIT


def test_at_least_the_ten_pairs_are_listed() -> None:
    bases = ["BTC", "ETH", "SOL", "BNB", "XRP", "ADA", "DOGE", "AVAX", "MATIC", "DOT"]
    assert {i.symbol for i in DEFAULT_INSTRUMENTS} >= {f"{base}-USD" for base in bases}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"symbol": "btc-usd"}, "symbol"),
        ({"symbol": "BTC"}, "symbol"),
        ({"symbol": "BTC-USD-X"}, "symbol"),
        ({"symbol": "BTC-USD\n"}, "symbol"),
        ({"tick_size": Decimal(0)}, "tick_size"),
        ({"tick_size": Decimal("1e-19")}, "tick_size"),
        ({"lot_size": Decimal(-1)}, "lot_size"),
        ({"lot_size": Decimal("1e19")}, "lot_size"),
        ({"max_price": Decimal("0.015")}, "max_price"),
        ({"max_price": Decimal("90071992547409.92")}, "max_price"),
        ({"max_quantity": Decimal(2**53)}, "max_quantity"),
        ({"max_quantity": Decimal(0)}, "max_quantity"),
        ({"max_quantity": Decimal("1e999")}, "max_quantity"),
    ],
)
def test_listing_checks_that_everything_stays_exact(changed: dict[str, object], field: str) -> None:
    values = {"symbol": "AAA-BBB", "tick_size": Decimal("0.01"), "lot_size": Decimal(1)} | changed
    with pytest.raises(InvalidInstrument) as caught:
        list_instrument(**values)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_the_greatest_limits_are_one_below_two_to_the_53() -> None:
    listed = list_instrument(
        "AAA-BBB", Decimal("0.01"), Decimal(1), Decimal("90071992547409.91"), Decimal(2**53 - 1)
    )
    market = Market(listed)
    assert market.price.limit == market.quantity.limit == EXACT_LIMIT - 1


def test_a_notional_counts_in_ticks_times_lots_however_many_digits_that_takes() -> None:
    """Where Decimal's usual 28 digits would round."""
    tick, lot = Decimal("0.123456789012345678"), Decimal("0.987654321098765431")
    market = Market(list_instrument("AAA-BBB", tick, lot))
    exact = int(tick.scaleb(18)) * int(lot.scaleb(18)) * 3
    assert market.notional.format(3) == "0." + str(exact).zfill(36)
    assert market.notional.limit == market.price.limit * market.quantity.limit
