"""A real Chromium for the tests of the trading page, and what each page that they open must not do:
fail, break its Content-Security-Policy, or ask another host for anything.
"""

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.trading_page import TradingPage
from tests.system import System

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
# As root, which CI is, it runs only without its sandbox; containers have little shared memory.
ARGUMENTS = ("--no-sandbox", "--disable-dev-shm-usage")
EXPECT_TIMEOUT_MS = 15_000
OpenPage = Callable[..., TradingPage]


def chromium_path() -> str:
    """The machine's browser. Without one the tests are skipped, unless they are required."""
    for name in CHROMIUMS:
        path = shutil.which(name)
        if path:
            return path
    reason = "no Chromium; get it with: apt-get install chromium"
    if os.environ.get("CROSSBOOK_TEST_BROWSER") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests of this process; each page has a profile of its own."""
    path = chromium_path()
    expect.set_options(timeout=EXPECT_TIMEOUT_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page_of(browser: Browser) -> Iterator[OpenPage]:
    """Opens the trading page of a system: `open_page_of(system, symbol, client)`."""
    opened: list[TradingPage] = []

    def open_it(
        system: System, symbol: str, client: str = "alice", **options: object
    ) -> TradingPage:
        page = TradingPage(browser, system.api, symbol, client, **options)
        opened.append(page)
        page.open()
        return page

    yield open_it
    for page in opened:
        page.close()
    assert [fault for page in opened for fault in page.faults] == []


@pytest.fixture
def open_page(system: System, open_page_of: OpenPage) -> OpenPage:
    """The same of the session's system: `open_page(symbol, client)`."""
    return lambda symbol, client="alice", **options: open_page_of(system, symbol, client, **options)


@pytest.fixture
def market(system: System) -> str:
    """A fresh instrument with cents and four decimals of quantity."""
    return system.list_instrument("0.01", "0.0001")
