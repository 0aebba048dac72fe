"""What a trader does on the page: places, amends, cancels, and is told in words what is wrong."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.conftest import ListInstrument
from tests.rest import Api, an_order


def rest(api: Api, symbol: str, side: str, price: str, quantity: str, **more: object) -> str:
    """Somebody else's order that rests; its id."""
    order = an_order(symbol, side=side, price=price, quantity=quantity, client_id="maker", **more)
    return str(api.placed(order)["order"]["order_id"])


def test_an_order_is_placed_by_a_click_on_a_level_then_amended_and_cancelled(
    open_page: OpenPage, api: Api, market: str
) -> None:
    rest(api, market, "buy", "99.50", "2")
    rest(api, market, "sell", "100.50", "1.5")
    page = open_page(market)
    page.level("99.50").click()
    expect(page.find("#price")).to_have_value("99.50")
    page.enter(quantity="0.25")
    expect(page.find("#estimate")).to_have_text(f"24.88 {market.split('-')[1]}")
    page.submit()

    row = page.open_orders()
    expect(row).to_have_count(1)
    expect(row).to_contain_text("99.50")
    expect(page.find("#open-count")).to_have_text("1")
    expect(page.level("99.50")).to_contain_text("2.2500")
    expect(page.level("99.50")).to_have_class("level buy mine")

    row.get_by_role("button", name="Amend").click()
    page.find("#amend-price").fill("99.60")
    page.find("#amend-quantity").fill("0.3")
    page.find("#amend-save").click()
    expect(row).to_contain_text("99.60")
    for verb in ("Amend", "Cancel"):
        expect(row.get_by_label(f"{verb} buy order for 0.3 at 99.60")).to_be_visible()
    expect(page.level("99.60")).to_contain_text("0.3000")
    expect(page.level("99.50")).to_have_class("level buy")
    (order,) = api.all_orders(client_id="alice", instrument=market)
    assert (order["price"], order["quantity"], order["status"]) == ("99.60", "0.3000", "open")

    row.get_by_role("button", name="Cancel").click()
    expect(page.find("#open-none")).to_be_visible()
    expect(page.level("99.60")).to_have_count(0)
    page.find("#tab-over").click()
    expect(page.find("#over-table tbody tr")).to_contain_text("Cancelled: as you asked")


def test_a_level_with_shift_takes_the_quantity_up_to_it(
    open_page: OpenPage, api: Api, market: str
) -> None:
    rest(api, market, "sell", "100.00", "1")
    rest(api, market, "sell", "101.00", "0.5")
    page = open_page(market)
    page.level("101.00").click(modifiers=["Shift"])
    expect(page.find("#price")).to_have_value("101.00")
    expect(page.find("#quantity")).to_have_value("1.5")


def test_fills_history_and_position_of_a_trade(open_page: OpenPage, api: Api, market: str) -> None:
    rest(api, market, "sell", "100.00", "2")
    page = open_page(market, "filler")
    page.choose("type", "market")
    page.enter(quantity="0.5")
    expect(page.find("#estimate")).to_have_text("about 50.00 USD")
    page.submit()
    expect(page.notices()).to_contain_text("Buy 0.5: filled, 0.5 filled at 100.00")
    expect(page.find("#tape-rows li").first).to_contain_text("100.00")
    expect(page.find("#last")).to_have_text("100.00")
    page.find("#tab-fills").click()
    fill = page.find("#fills-table tbody tr")
    expect(fill).to_have_count(1)
    expect(fill).to_contain_text("Taker")
    page.find("#tab-positions").click()
    position = page.find("#positions-table tbody tr")
    expect(position).to_contain_text(market)
    expect(position.locator(".quantity")).to_have_text("0.5")
    expect(position.locator(".average")).to_have_text("100.00")
    expect(position.locator(".unrealised")).to_have_text("0.00")


def test_fills_are_there_after_a_reload(open_page: OpenPage, api: Api, market: str) -> None:
    rest(api, market, "sell", "100.00", "2")
    order = an_order(market, price="100.00", quantity="1", client_id="returning")
    assert len(api.placed(order)["trades"]) == 1
    page = open_page(market, "returning")
    page.find("#tab-fills").click()
    expect(page.find("#fills-table tbody tr")).to_have_count(1)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [("halted", "Trading in this market is halted"), ("cancel_only", "takes cancels only")],
)
def test_a_market_that_takes_no_orders_says_so(
    open_page: OpenPage, api: Api, market: str, status: str, sentence: str
) -> None:
    api.changed_rules(market, status=status)
    page = open_page(market)
    expect(page.find("#market-status")).to_be_visible()
    page.place("buy", "10.00", "1")
    expect(page.alert()).to_contain_text(sentence)
    expect(page.open_orders()).to_have_count(0)


def test_refusals_are_told_in_words(open_page: OpenPage, api: Api, market: str) -> None:
    rest(api, market, "sell", "100.00", "1")
    api.changed_rules(market, max_order_quantity="5")
    page = open_page(market)
    page.find('#ticket [name="post_only"]').check()
    page.place("buy", "100.00", "1")
    expect(page.alert()).to_have_text(
        "Not placed: it is post-only, and at this price it would trade at once."
    )
    page.find('#ticket [name="post_only"]').uncheck()
    page.place("buy", "50.00", "6")
    expect(page.alert()).to_contain_text("above this market's limit")
    assert page.alert().get_attribute("role") == "alert"


def test_what_is_wrong_with_a_field_is_told_beside_it(
    open_page: OpenPage, list_instrument: ListInstrument
) -> None:
    page = open_page(list_instrument("0.25", "0.0001"))
    page.place("buy", "100.10", "0")
    expect(page.complaint("price")).to_have_text("Must be a multiple of 0.25")
    expect(page.complaint("quantity")).to_have_text("Must be greater than zero")
    expect(page.find("#price")).to_be_focused()
    expect(page.find("#price")).to_have_attribute("aria-invalid", "true")
    page.enter(price="100,5")
    expect(page.complaint("price")).to_have_text("")
    page.submit()
    expect(page.complaint("price")).to_contain_text("point for decimals")


def test_only_fields_that_apply_are_shown(open_page: OpenPage, market: str) -> None:
    page = open_page(market)
    page.more_options()
    shown = {
        "limit": {"price", "quantity", "time_in_force", "post_only", "display_quantity"},
        "market": {"quantity", "time_in_force"},
        "stop": {"stop_price", "quantity", "time_in_force"},
        "stop_limit": {"stop_price", "price", "quantity", "time_in_force", "display_quantity"},
    }
    fields = '[...document.querySelectorAll("#ticket [data-field]")].filter((row) => !row.hidden)'
    for kind, names in shown.items():
        page.choose("type", kind)
        found = page.page.evaluate(f"{fields}.map((row) => row.dataset.field)")
        assert set(found) == names | {"self_trade_prevention"}, kind
    page.choose("type", "limit")
    page.enter(time_in_force="gtd")
    expect(page.find("#expires_at")).to_be_visible()
    page.enter(time_in_force="ioc")
    expect(page.find("#expires_at")).to_be_hidden()
    expect(page.find("#display_quantity")).to_be_hidden()


def test_every_kind_of_order_arrives_as_it_was_entered(
    open_page: OpenPage, api: Api, market: str
) -> None:
    rest(api, market, "sell", "100.00", "1")
    api.placed(an_order(market, price="100.00", quantity="0.5"))
    page = open_page(market, "everything")
    page.more_options()
    page.enter(
        price="90",
        quantity="2",
        display_quantity="0.5",
        time_in_force="gtd",
        expires_at="2099-01-31T12:00",
        self_trade_prevention="cancel_both",
    )
    page.submit()
    page.choose("type", "stop")
    page.enter(stop_price="120.5", quantity="1", time_in_force="gtc")
    page.submit()
    expect(page.notices()).to_contain_text("Buy 1, stop 120.50: waits for its stop")
    page.choose("type", "stop_limit")
    page.choose("side", "sell")
    page.enter(stop_price="80", price="79", quantity="1", display_quantity="")
    page.submit()
    page.choose("type", "market")
    page.choose("side", "buy")
    page.enter(quantity="3", time_in_force="fok")
    page.submit()
    expect(page.notices()).to_contain_text("it could not be filled completely at once")
    expect(page.open_orders()).to_have_count(3)

    orders = {each["type"]: each for each in api.all_orders(client_id="everything")}
    limit, stop, stop_limit = (orders[kind] for kind in ("limit", "stop", "stop_limit"))
    assert (limit["price"], limit["display_quantity"]) == ("90.00", "0.5000")
    assert limit["expires_at"] == "2099-01-31T12:00:00.000000Z"
    assert limit["self_trade_prevention"] == "cancel_both"
    assert (stop["stop_price"], stop["side"], stop["status"]) == ("120.50", "buy", "pending")
    assert (stop_limit["stop_price"], stop_limit["price"]) == ("80.00", "79.00")
    assert (orders["market"]["time_in_force"], orders["market"]["status"]) == ("fok", "cancelled")


def test_an_order_whose_answer_was_lost_is_placed_once(
    open_page: OpenPage, api: Api, market: str
) -> None:
    page = open_page(market, "unlucky")
    page.choose("side", "buy")
    page.enter(price="10.00", quantity="1")
    # It arrives, and its answer does not.
    page.page.route("**/orders", lambda route: (route.fetch(), route.abort()), times=1)
    page.submit()
    expect(page.alert()).to_contain_text("No answer came")
    page.submit()
    placed = "Buy 1 at 10.00: open"
    said = page.notices().locator("li > span").last
    expect(said).to_have_text(f"Your first attempt had arrived; nothing was placed again. {placed}")
    expect(page.alert()).to_be_hidden()
    assert len(api.all_orders(client_id="unlucky", instrument=market)) == 1
    expect(page.open_orders()).to_have_count(1)
    page.submit()
    expect(said).to_have_text(placed)


def test_all_open_orders_are_cancelled_at_once(open_page: OpenPage, api: Api, market: str) -> None:
    for price in ("10", "11", "12"):
        api.placed(an_order(market, price=price, quantity="1", client_id="sweeper"))
    page = open_page(market, "sweeper")
    expect(page.open_orders()).to_have_count(3)
    page.find("#cancel-all").click()
    expect(page.find("#open-none")).to_be_visible()
    expect(page.find(".level:enabled")).to_have_count(0)


def test_orders_placed_elsewhere_appear_and_follow_the_name(
    open_page: OpenPage, api: Api, market: str
) -> None:
    page = open_page(market, "carol")
    api.placed(an_order(market, price="10", quantity="1", client_id="carol"))
    expect(page.open_orders()).to_have_count(1)
    page.find("#client").fill("dave")
    page.find("#client").press("Enter")
    expect(page.open_orders()).to_have_count(0)
    api.placed(an_order(market, price="11", quantity="1", client_id="dave"))
    expect(page.open_orders()).to_contain_text("11.00")


def test_another_market_is_chosen_by_typing(
    open_page: OpenPage, api: Api, market: str, list_instrument: ListInstrument
) -> None:
    page = open_page(market)
    other = list_instrument("0.01", "0.0001")
    rest(api, other, "buy", "7.00", "3")
    page.page.keyboard.press("m")
    expect(page.find("#markets-list [data-symbol]").first).to_be_visible()
    list_top = "dialog => dialog.getBoundingClientRect().top"
    before = page.find("#markets").evaluate(list_top)
    page.find("#markets-filter").fill(other[:5])
    expect(page.find(f'#markets-list [data-symbol="{other}"]')).to_be_visible()
    assert page.find("#markets").evaluate(list_top) == before, "though it got shorter"
    page.page.keyboard.press("Enter")
    expect(page.find("#market-symbol")).to_have_text(other)
    expect(page.level("7.00")).to_have_count(1)
    assert page.page.url.endswith(f"#{other}")
    page.page.go_back()
    expect(page.find("#market-symbol")).to_have_text(market)
    expect(page.level("7.00")).to_have_count(0)
