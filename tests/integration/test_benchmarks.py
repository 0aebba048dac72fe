"""The benchmarks that need no load generator run; at these sizes their figures mean nothing."""

from collections.abc import Callable

import pytest

from tests.benchmarks import engine, scaling, worst_case
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.tables import Table

SMALL = Sizes(rounds=1, commands=200, resting=3_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    "run", [engine.run, scaling.run, worst_case.run], ids=["engine", "scaling", "worst"]
)
def test_a_benchmark_measures_what_it_compares_with_its_bounds(
    run: Callable[[Sizes], Table],
) -> None:
    table = run(SMALL)
    assert table.rows
    assert table.bounds
    assert all(bound.value > 0 for bound in table.bounds)
