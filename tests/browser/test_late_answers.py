"""The page while answers are late, lost or refused: what is said last wins, and nothing that came
too late for one order or market is taken for another's.
"""

import json
import re

import pytest
from playwright.sync_api import APIResponse, Route, WebSocketRoute, expect

from tests.browser.conftest import OpenPage
from tests.browser.trading_page import TradingPage
from tests.conftest import ListInstrument
from tests.rest import Api, an_order

NOT_NOW = {
    "status": 503,
    "content_type": "application/problem+json",
    "body": json.dumps({"status": 503, "code": "database_unavailable", "title": "Unavailable"}),
}
LIVE = "body[data-connection='live'][data-sequence]"
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
EVENTS_MAX, EVENTS_MS = 1_000, 10


class Late:
    """Answers that the server gave and the page does not get before the test lets them go."""

    def __init__(self, page: TradingPage, address: str, method: str = "GET") -> None:
        """`address` is a part of the addresses that are asked for."""
        self._page = page.page
        self._method = method
        self._held: list[tuple[Route, APIResponse]] = []
        page.page.route(lambda url: address in url, self._hold)

    def _hold(self, route: Route) -> None:
        if route.request.method == self._method:
            self._held.append((route, route.fetch()))
        else:
            route.fallback()

    def come(self, count: int = 1) -> None:
        """Returns once so many are there."""
        for _ in range(EVENTS_MAX):
            if len(self._held) >= count:
                return
            self._page.wait_for_timeout(EVENTS_MS)  # what the browser tells comes while it waits
        pytest.fail("the page did not ask")

    def release(self) -> None:
        """Returns when the page has had the first one, and drawn."""
        route, answer = self._held.pop(0)
        with self._page.expect_event("requestfinished", lambda done: done == route.request):
            route.fulfill(response=answer)
        self._page.evaluate(DRAWN)


def turn_to(page: TradingPage, symbol: str) -> None:
    """Another market, as the address has it."""
    page.page.evaluate("symbol => { location.hash = symbol }", symbol)


def shows(page: TradingPage, symbol: str) -> None:
    """Returns once the page says that this is the market."""
    expect(page.find("#market-symbol")).to_have_text(symbol)


def trade(api: Api, symbol: str, price: str) -> None:
    """Two others meet at a price."""
    for side in ("buy", "sell"):
        api.placed(an_order(symbol, side=side, price=price, quantity="1", client_id=f"{side}er"))


def amend(page: TradingPage, price: str, wanted: str) -> None:
    """Open the dialog of the order at a price, and enter another one."""
    row = page.open_orders().filter(has_text=price)
    row.get_by_role("button", name="Amend").click()
    page.find("#amend-price").fill(wanted)


def lose_the_answer(route: Route) -> None:
    """The request arrives, and its answer does not."""
    route.fetch()
    route.abort()


def test_an_order_without_an_answer_keeps_its_key_whatever_is_placed_in_between(
    open_page: OpenPage, api: Api, market: str
) -> None:
    page = open_page(market, "doubtful")
    page.page.route("**/orders", lose_the_answer, times=1)
    page.place("buy", "10.00", "0.03")
    expect(page.alert()).to_contain_text("No answer came")
    page.place("buy", "10.00", "0.04")
    page.page.route("**/orders", lambda route: route.fulfill(**NOT_NOW), times=1)
    page.place("buy", "10.00", "0.03")  # of this attempt nothing is there, of the first one it is
    expect(page.alert()).to_contain_text("Try again shortly")
    page.submit()
    expect(page.alert()).to_be_hidden()
    placed = api.all_orders(client_id="doubtful", instrument=market)
    assert sorted(order["quantity"] for order in placed) == ["0.0300", "0.0400"]
    page.submit()  # an answer came: from now on it is another order
    expect(page.open_orders()).to_have_count(3)


def test_of_two_markets_the_one_chosen_last_is_shown(
    open_page: OpenPage, market: str, list_instrument: ListInstrument
) -> None:
    slow, last = (list_instrument("0.01", "0.0001") for _ in range(2))
    page = open_page(market)
    late = Late(page, f"/instruments/{slow}")
    turn_to(page, slow)
    late.come()
    turn_to(page, last)
    shows(page, last)
    late.release()
    shows(page, last)
    assert page.page.url.endswith(f"#{last}")
    turn_to(page, slow)
    late.come()
    turn_to(page, last)  # where the page still is
    late.release()
    shows(page, last)


def test_trades_of_an_earlier_visit_to_a_market_leave_no_hole_in_its_tape(
    open_page: OpenPage, api: Api, market: str, list_instrument: ListInstrument
) -> None:
    other = list_instrument("0.01", "0.0001")
    page = open_page(other)
    late = Late(page, f"/trades?instrument={market}")
    turn_to(page, market)
    late.come()  # with none
    turn_to(page, other)
    shows(page, other)
    trade(api, market, "10.00")
    turn_to(page, market)
    late.come(2)  # with the first one
    late.release()
    trade(api, market, "11.00")
    expect(page.find("#last")).to_have_text("11.00")
    late.release()
    expect(page.find("#tape-rows li")).to_have_count(2)


def test_an_address_that_is_no_text_does_not_matter(open_page: OpenPage, market: str) -> None:
    page = open_page(market)
    page.page.evaluate("history.replaceState(null, '', '#%E0%A4%A')")
    page.page.reload()
    page.page.wait_for_selector(LIVE)
    shows(page, market)


def test_a_market_that_cannot_be_read_at_first_is_tried_again(
    open_page: OpenPage, market: str
) -> None:
    page = open_page(market)
    address = f"**/instruments/{market}"
    page.page.route(address, lambda route: route.fulfill(**NOT_NOW), times=1)
    page.page.reload()
    expect(page.notices()).to_contain_text("It is tried again")
    page.page.wait_for_selector(LIVE)
    shows(page, market)


def test_an_order_before_any_market_is_open_is_not_sent(open_page: OpenPage, market: str) -> None:
    page = open_page(market)
    page.page.route("**/instruments", lambda route: route.fulfill(**NOT_NOW))
    page.page.reload()
    page.place("buy", "10.00", "1")
    expect(page.alert()).to_have_text("No market is open yet. Nothing was sent.")


def test_trouble_that_goes_on_is_said_once_and_of_a_question_not_as_of_an_order(
    open_page: OpenPage, api: Api, market: str
) -> None:
    api.placed(an_order(market, price="10", quantity="1", client_id="insisting"))
    page = open_page(market, "insisting")
    page.page.route("**/orders/*", lambda route: route.abort())
    cancel = page.open_orders().get_by_role("button", name="Cancel")
    for _ in range(2):
        cancel.click()
        expect(cancel).not_to_have_attribute("aria-disabled", "true")
    expect(page.notices().locator("li")).to_have_count(1)
    expect(page.notices()).to_contain_text("not known what happened")
    page.page.route(lambda url: "/trades?" in url, lambda route: route.abort())
    page.page.reload()
    expect(page.notices()).to_have_text(re.compile("^The venue does not answer."))


def test_prices_that_come_late_leave_the_focus_in_the_list_of_markets(
    open_page: OpenPage, market: str
) -> None:
    page = open_page(market)
    late = Late(page, "/ticker")
    page.page.keyboard.press("m")
    late.come()
    page.page.keyboard.press("ArrowDown")
    first = page.find("#markets-list button").first
    expect(first).to_be_focused()
    late.release()
    expect(first).to_be_focused()


def test_the_focus_goes_on_from_a_level_that_vanishes(
    open_page: OpenPage, api: Api, market: str
) -> None:
    def bid(price: str) -> str:
        order = an_order(market, price=price, quantity="1", client_id="maker")
        return str(api.placed(order)["order"]["order_id"])

    best, second, last = (bid(price) for price in ("99", "98", "97"))
    page = open_page(market)
    page.find(".level[tabindex='0']").focus()
    for _ in range(2):
        page.page.keyboard.press("ArrowDown")
    expect(page.level("97.00")).to_be_focused()
    api.cancelled(last)
    expect(page.level("98.00")).to_be_focused()
    expect(page.level("98.00")).to_have_attribute("tabindex", "0")
    api.cancelled(best)
    expect(page.level("98.00")).to_be_focused()
    api.cancelled(second)
    expect(page.find("#ladder")).to_be_focused()
    bid("96")
    expect(page.level("96.00")).to_be_enabled()
    page.page.keyboard.press("ArrowDown")
    expect(page.level("96.00")).to_be_focused()


def test_one_level_of_the_book_can_always_be_reached_by_keys(
    open_page: OpenPage, api: Api, market: str
) -> None:
    for price in ("99", "98"):
        api.placed(an_order(market, price=price, quantity="1", client_id="maker"))
    page = open_page(market)
    reachable = page.find(".level[tabindex='0']")
    expect(reachable).to_contain_text("99.00")  # there are no asks
    reachable.focus()
    page.page.keyboard.press("ArrowDown")
    expect(reachable).to_contain_text("98.00")
    (deep,) = [each for each in api.all_orders(instrument=market) if each["price"] == "98.00"]
    api.cancelled(deep["order_id"])
    expect(reachable).to_contain_text("99.00")
    expect(reachable).to_be_enabled()


def test_the_answer_to_one_amendment_leaves_that_of_another_order_alone(
    open_page: OpenPage, api: Api, market: str
) -> None:
    for price in ("10", "20"):
        api.placed(an_order(market, price=price, quantity="1", client_id="hasty"))
    page = open_page(market, "hasty")
    late = Late(page, "/orders/", "PATCH")
    amend(page, "10.00", "10.50")
    page.find("#amend-save").click()
    late.come()
    page.find("#amend-close").click()
    amend(page, "20.00", "20.50")
    late.release()
    expect(page.find("#amend")).to_be_visible()
    expect(page.find("#amend-price")).to_have_value("20.50")
    page.find("#amend-save").click()
    late.come()
    page.find("#amend-close").click()
    amend(page, "10.50", "10.60")
    page.find("#amend-save").click()  # it does not wait for the answer about the other one
    late.come(2)
    late.release()
    expect(page.find("#amend")).to_be_visible()
    late.release()
    expect(page.find("#amend")).to_be_hidden()
    expect(page.open_orders()).to_contain_text(["20.50", "10.60"])


def test_candles_of_one_market_are_not_shown_under_the_name_of_another(
    open_page: OpenPage, api: Api, market: str, list_instrument: ListInstrument
) -> None:
    other = list_instrument("0.01", "0.0001")
    trade(api, market, "10.00")
    page = open_page(market)

    def forget_the_other(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        socket.on_message(lambda message: None if other in str(message) else server.send(message))

    page.page.route_web_socket("**/ws", forget_the_other)
    page.page.reload()
    expect(page.find("#chart-legend")).to_contain_text("C 10.00")
    turn_to(page, other)
    shows(page, other)
    expect(page.find("#chart-legend")).to_have_text("")
    turn_to(page, market)
    expect(page.find("#chart-legend")).to_contain_text("C 10.00")


def test_what_is_not_known_of_a_position_has_no_sign(open_page: OpenPage, market: str) -> None:
    page = open_page(market)
    position = {"instrument": market, "quantity": "1", "average_cost": None, "fees": "0"}
    answer = {"positions": [position | {"realised_pnl": None}]}
    page.page.route(lambda url: "/positions?" in url, lambda route: route.fulfill(json=answer))
    page.find("#tab-positions").click()
    for name in ("unrealised", "realised"):
        expect(page.find(f"#positions-table td.{name}")).to_have_text("\N{EN DASH}")
