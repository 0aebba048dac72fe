"""The order flow and cases that others published, with their results, through REST alone: orders in
decimals over HTTP, answers and lists out, and nothing asked behind the API's back.
"""

from pathlib import Path

import pytest

from tests import truth
from tests.audit import audit
from tests.conftest import ListInstrument
from tests.rest import Api, RestVenue
from tests.system import System


@pytest.mark.parametrize("path", truth.case_files(), ids=lambda path: path.stem)
def test_cases_that_others_wrote(api: Api, list_instrument: ListInstrument, path: Path) -> None:
    for case in truth.load_cases(path):
        truth.check_case(RestVenue(api, list_instrument()), case)


@pytest.mark.slow
@pytest.mark.parametrize("path", truth.flash1_files(), ids=lambda path: path.stem)
def test_twenty_thousand_operations_of_flash1(system: System, symbol: str, path: Path) -> None:
    """Every fill, and whether each cancel and replace found its order, as published; at the end the
    book, the events and the rows in Postgres are the reference's.
    """
    truth.check_flash1(RestVenue(system.api, symbol), truth.load_flash1(path))
    assert audit(system, symbol).sequence > 10_000, "it was the whole tape"
