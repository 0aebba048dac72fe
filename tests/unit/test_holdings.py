"""What a position costs: exactly, whatever is rounded on the way."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.holdings import Holding
from app.domain.instruments import divide_half_even

trades = st.lists(
    st.tuples(
        st.integers(-9, 9).filter(bool) | st.integers(-(2**53), 2**53).filter(bool),
        st.integers(1, 9) | st.integers(1, 2**53),
    ),
    max_size=30,
)


def held_after(*steps: tuple[int, int]) -> Holding:
    holding = Holding()
    for lots, price_ticks in steps:
        holding = holding.after(lots, price_ticks)
    return holding


@pytest.mark.parametrize(
    ("steps", "lots", "cost"),
    [
        ([], 0, 0),
        ([(2, 100), (2, 110)], 4, 420),
        ([(2, 100), (2, 110), (-1, 500)], 3, 315),
        ([(2, 100), (-2, 110)], 0, 0),
        ([(2, 100), (-5, 110)], -3, -330),
        ([(-2, 100), (-2, 110), (1, 1)], -3, -315),
        ([(-3, 100), (7, 90)], 4, 360),
        ([(1, 1), (1, 2), (-1, 9)], 1, 1),  # 1.5 released: 2
        ([(1, 2), (1, 3), (-1, 9)], 1, 3),  # 2.5 released: 2
        ([(-1, 2), (-1, 3), (1, 9)], -1, -3),
        ([(3, 10), (1, 11), (-1, 9)], 3, 31),  # 10.25 released: 10
    ],
)
def test_average_cost(steps: list[tuple[int, int]], lots: int, cost: int) -> None:
    """Rule: enlarging adds the notional, reducing takes away a share rounded half to even, going
    through zero opens the rest at its price.
    """
    assert held_after(*steps) == (lots, cost)


@given(trades)
def test_shorts_mirror_longs(steps: list[tuple[int, int]]) -> None:
    """Rule: whoever sells what another buys has the same, with the sign changed."""
    lots, cost = held_after(*steps)
    assert held_after(*((-quantity, price) for quantity, price in steps)) == (-lots, -cost)


@given(trades)
def test_nothing_is_gained_or_lost_by_rounding(steps: list[tuple[int, int]]) -> None:
    """Rule: what was received for what was sold, less what was paid, and the cost of what is open
    are the realised profit; of one who holds nothing it is all in money. A position's average cost
    lies between the prices at which it was opened, but for what was rounded.
    """
    holding, realised = Holding(), Fraction(0)
    for lots, price_ticks in steps:
        before, holding = holding, holding.after(lots, price_ticks)
        if before.lots * lots < 0:
            closed = min(abs(lots), abs(before.lots)) * (1 if before.lots > 0 else -1)
            released = before.cost - (holding.cost if abs(lots) < abs(before.lots) else 0)
            realised += closed * price_ticks - released
            exact = Fraction(before.cost * closed, before.lots)
            assert abs(released - exact) <= Fraction(1, 2)
    paid = sum(lots * price_ticks for lots, price_ticks in steps)
    assert realised == holding.cost - paid
    assert holding.lots == sum(lots for lots, _ in steps)
    assert (holding.cost > 0) - (holding.cost < 0) == (holding.lots > 0) - (holding.lots < 0)


@given(st.integers(-(10**40), 10**40), st.integers(1, 10**20))
def test_division_rounds_half_to_even(numerator: int, denominator: int) -> None:
    """Rule: as Python rounds fractions, of either sign."""
    assert divide_half_even(numerator, denominator) == round(Fraction(numerator, denominator))
