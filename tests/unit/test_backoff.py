"""Waiting between attempts: longer each time, bounded, and by chance."""

import pytest

from app.backoff import delay_s

FIRST_S, MAX_S = 0.05, 2.0


@pytest.mark.parametrize(
    ("failures", "longest_s"), [(1, 0.05), (2, 0.1), (3, 0.2), (6, 1.6), (7, 2.0), (10**9, 2.0)]
)
def test_it_doubles_up_to_its_limit(failures: int, longest_s: float) -> None:
    waits = [delay_s(failures, FIRST_S, MAX_S) for _ in range(200)]
    assert longest_s / 2 <= min(waits) <= max(waits) <= longest_s


def test_two_that_failed_together_do_not_come_back_together() -> None:
    assert len({delay_s(5, FIRST_S, MAX_S) for _ in range(100)}) > 90
