"""The page under traders, while parts of the venue are killed: it says so, comes back by itself,
and shows the book as it is.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException

import pytest
from playwright.sync_api import WebSocketRoute, expect

from tests.browser.conftest import OpenPage
from tests.browser.trading_page import TradingPage
from tests.processes import children_of, is_running
from tests.rest import Json, an_order
from tests.system import ROOT, System, running_system
from tests.waiting import wait_for

SYMBOL = "BTC-USD"
RATE = 60
SIMULATE_STOP_TIMEOUT_S = 20
MANY, ENOUGH = 100, 4
"""Orders that are placed at most, until so many deltas have come."""
LOOK_MS = 120
LIVE = "body[data-connection='live'][data-sequence]"


@pytest.fixture(scope="module")
def venue() -> Iterator[System]:
    """A system of its own: it is killed."""
    with running_system() as running:
        yield running


@contextmanager
def simulated(system: System) -> Iterator[None]:
    """Traders at work; afterwards their orders are gone."""
    url = f"http://127.0.0.1:{system.api.port}"
    command = [sys.executable, "-m", "app", "simulate", "--url", url, "--rate", str(RATE)]
    traders = subprocess.Popen(
        [*command, "--instruments", SYMBOL],
        cwd=ROOT,
        env=system.up.environment(),
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        traders.send_signal(signal.SIGTERM)
        assert traders.wait(SIMULATE_STOP_TIMEOUT_S) == 0


def answers(system: System) -> bool:
    """Whether the server is there and takes orders."""
    try:
        return system.api.get("/readyz").status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False


def moves(page: TradingPage) -> None:
    """Returns once book, tape and chart have changed."""
    before = page.sequence
    texts = {
        selector: page.find(selector).first.text_content()
        for selector in ("#ladder", "#tape-rows", "#chart-legend")
    }
    page.page.wait_for_function(
        "(from) => Number(document.body.dataset.sequence) > from", arg=before
    )
    for selector, text in texts.items():
        expect(page.find(selector).first).not_to_have_text(text or "")


def shows_the_book(page: TradingPage, system: System) -> None:
    """Returns once each level that the page shows is one of the venue's, in its order."""

    def is_so() -> bool:
        book = system.api.found("/orderbook", instrument=page.symbol)
        for side in ("bids", "asks"):
            levels = [(level["price"], level["quantity"]) for level in book[side]]
            shown = page.ladder(side)
            if shown != levels[: len(shown)] or not (shown or not levels):
                return False
        return page.sequence == book["sequence"]

    wait_for(is_so)


def test_the_page_lives_and_says_when_redis_is_gone_and_is_right_again(
    venue: System, open_page_of: OpenPage
) -> None:
    order = an_order(SYMBOL, client_id="witness", price="60000.00", quantity="0.5")
    venue.api.placed(order)
    page = open_page_of(venue, SYMBOL, "witness")
    with simulated(venue):
        moves(page)
        with venue.stopped_supervisor():
            venue.kill("redis")
            expect(page.find("#banner-text")).to_contain_text("Orders cannot be taken now")
            expect(page.find("#connection-label")).to_have_text("Limited")
            page.place("buy", "59000", "0.1")
            expect(page.alert()).to_contain_text("Nothing was done")
        expect(page.find("#banner")).to_be_hidden(timeout=30_000)
        expect(page.notices()).to_contain_text("Everything was read anew")
        moves(page)
        expect(page.open_orders()).to_have_count(1)
        page.submit()
        expect(page.open_orders()).to_have_count(2)
    shows_the_book(page, venue)


def test_a_message_that_never_came_is_noticed_and_the_book_read_anew(
    venue: System, open_page_of: OpenPage
) -> None:
    page = open_page_of(venue, SYMBOL, "watchful")
    deltas = 0

    def lose_the_second_delta(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            nonlocal deltas
            deltas += '"type":"book_delta"' in str(message)
            if deltas != 2:
                socket.send(message)
            else:
                deltas += 1  # only this one

        server.on_message(pass_on)

    page.page.route_web_socket("**/ws", lose_the_second_delta)
    page.page.reload()
    page.page.wait_for_selector(LIVE)
    for cents in range(MANY):
        if deltas > ENOUGH:
            break
        order = an_order(SYMBOL, client_id="other", price=f"50000.{cents:02d}", quantity="0.01")
        venue.api.placed(order)
        page.page.wait_for_timeout(LOOK_MS)  # messages pass while it waits
    assert deltas > ENOUGH
    shows_the_book(page, venue)


class Line:
    """What the page's next connections go through: can be cut, and knows what was asked for."""

    def __init__(self, page: TradingPage) -> None:
        self.is_cut = False
        self.subscriptions: list[Json] = []
        page.page.route_web_socket("**/ws", self._connect)
        page.page.reload()
        page.page.wait_for_selector(LIVE)

    def _connect(self, socket: WebSocketRoute) -> None:
        if self.is_cut:
            socket.close()
            return
        server = socket.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            asked = json.loads(message)
            if asked["op"] == "subscribe":
                self.subscriptions.append(asked)
            server.send(message)

        socket.on_message(pass_on)


def trade(venue: System, symbol: str, price: str, maker: str = "other") -> None:
    """A sale of a half, to `maker`, of whose order as much is left."""
    bid = an_order(symbol, client_id=maker, price=price, quantity="1")
    ask = an_order(symbol, side="sell", client_id="seller", price=price, quantity="0.5")
    venue.api.placed(bid)
    assert len(venue.api.placed(ask)["trades"]) == 1


def test_a_lost_connection_is_told_and_found_again_with_what_was_missed(
    venue: System, open_page_of: OpenPage
) -> None:
    symbol = venue.list_instrument("0.01", "0.0001")
    trade(venue, symbol, "100.00")
    page = open_page_of(venue, symbol, "patient")
    line = Line(page)
    expect(page.find("#tape-rows li")).to_have_count(1)
    known = page.sequence
    port, master = venue.api.port, venue.pid("serve")
    workers = children_of(master)
    with venue.stopped_supervisor():
        line.is_cut = True
        os.kill(master, signal.SIGKILL)
        # Workers answer for a moment after their master is gone.
        wait_for(lambda: not any(map(is_running, (master, *workers))))
        expect(page.find("#banner-text")).to_contain_text("The connection is lost")
        expect(page.find("#connection-label")).not_to_have_text("Live")
    wait_for(lambda: answers(venue))
    assert venue.api.port == port
    trade(venue, symbol, "100.01", "patient")
    trade(venue, symbol, "100.02")
    assert page.sequence == known, "it hears of nothing meanwhile"
    line.subscriptions.clear()
    line.is_cut = False
    page.page.evaluate("dispatchEvent(new Event('online'))")  # so that it does not wait
    page.page.wait_for_selector("body[data-connection='live']", timeout=30_000)
    expect(page.find("#banner")).to_be_hidden()
    expect(page.find("#tape-rows li .price")).to_have_text(
        [re.compile(f"^{price}") for price in ("100.02", "100.01", "100.00")]
    )
    expect(page.find("#fills-table tbody tr")).to_have_count(1)
    expect(page.open_orders()).to_have_count(1)
    expect(page.open_orders()).to_contain_text("100.01")
    shows_the_book(page, venue)
    book = next(asked for asked in line.subscriptions if asked["channels"] == ["book"])
    assert book.get("since") == known, "only what was missed is asked for"
