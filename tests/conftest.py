"""What tests of the running system share: one Crossbook for the whole session, a fresh instrument
for each test, and seeded randomness whose seed a failing test prints.
"""

import os
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.rest import Api
from tests.system import System, running_system

# A busy machine is no defect of what is tested.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

ListInstrument = Callable[..., str]
SUMMARY = "summary"


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """A running Crossbook. Tests leave it running and whole: what kills takes one of its own."""
    with running_system() as running:
        yield running


@pytest.fixture
def api(system: System) -> Api:
    """A client of `system`."""
    return system.api


@pytest.fixture
def list_instrument(system: System) -> ListInstrument:
    """Lists a fresh instrument (tick_size, lot_size, …) and returns its symbol."""
    return system.list_instrument


@pytest.fixture
def symbol(system: System) -> str:
    """A fresh instrument with tick 1 and lot 1."""
    return system.list_instrument()


@pytest.fixture
def summary(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Says what a test has measured at the end of the whole run, wherever the test ran."""
    return lambda text: record_property(SUMMARY, text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what tests gave to `summary`."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        texts = [str(text) for name, text in report.user_properties if name == SUMMARY]
        if texts and report.when == "call":
            terminalreporter.section(report.nodeid.rpartition("::")[2])
            terminalreporter.write_line("\n".join(texts))


@pytest.fixture
def rng() -> random.Random:
    """Randomness of this test; the same again with CROSSBOOK_TEST_SEED."""
    seed = int(os.environ.get("CROSSBOOK_TEST_SEED") or random.randrange(2**32))
    print(f"CROSSBOOK_TEST_SEED={seed}")  # noqa: T201  # pytest shows it where the test fails
    return random.Random(seed)
