"""The page where there is too much, too little or no room: long names, many digits, low and narrow
screens, more open orders than it shows, a book and a chart with nothing in them.
"""

from playwright.sync_api import ViewportSize, expect

from tests.browser.conftest import OpenPage
from tests.browser.trading_page import DESK, PHONE, TradingPage
from tests.rest import Api, Json, an_order
from tests.waiting import wait_for

WIDEST = "WWWWWWWWWWWW-MMMMMMMMMMMM"
FINEST = "0.00000001"
PHONE_ON_ITS_SIDE = {"width": 844, "height": 390}
LAPTOP = {"width": 1200, "height": 800}
SHOWN_MAX, SHOWN_HERE = 1_000, 2
"""What the page asks for, and what it gets here instead."""
NONE = {"orders": [], "next_cursor": None}
CANDLES = 59
FREE_BARS, BAR_PX = 4, 9
"""To the right of the newest candle, and how far apart they are."""
OVERLAPS = """
() => {
  const shown = [...document.querySelectorAll(".top > *, .tools > *, .now > *")]
    .filter((node) => node.checkVisibility() && node.textContent.trim());
  const parts = [...document.querySelectorAll(".top > *")].filter((node) => node.checkVisibility());
  const isSeen = (node) => getComputedStyle(node).overflowX === "visible";
  const wide = parts.filter((node) => isSeen(node) && node.scrollWidth > node.clientWidth + 1);
  const found = wide.map((node) => node.className);
  for (const one of shown) for (const other of shown) {
    if (one === other || one.contains(other) || other.contains(one)) continue;
    const [a, b] = [one.getBoundingClientRect(), other.getBoundingClientRect()];
    const isBeside = a.right <= b.left || b.right <= a.left;
    const isAbove = a.bottom <= b.top || b.bottom <= a.top;
    if (!isBeside && !isAbove) found.push([one.className, other.className]);
  }
  return found;
}
"""
CUT = """
() => [...document.querySelectorAll(".level:enabled")].filter((level) => {
  const edge = document.getElementById("ladder").getBoundingClientRect().right;
  const price = level.querySelector(".price");
  const rest = [...level.querySelectorAll(".quantity, .cumulative")];
  return price.scrollWidth > price.clientWidth + 1
    || rest.some((each) => each.checkVisibility() && each.getBoundingClientRect().right > edge);
}).map((level) => level.textContent)
"""
HEIGHTS = """
() => [...document.querySelectorAll("#chart-canvas *"), document.getElementById("chart-empty")]
  .map((node) => Number(getComputedStyle(node).zIndex) || 0)
"""


def resize(page: TradingPage, viewport: ViewportSize) -> None:
    """Returns when the page knows."""
    page.page.set_viewport_size(viewport)
    page.page.wait_for_function("(width) => innerWidth === width", arg=viewport["width"])


def test_long_names_and_many_digits_lie_over_nothing(open_page: OpenPage, api: Api) -> None:
    listing = {"symbol": WIDEST, "tick_size": FINEST, "lot_size": FINEST}
    assert api.request("POST", "/admin/instruments", listing).status in (200, 201)
    for side, price in (("sell", "9990.12345678"), ("buy", "9989.87654321")):
        quantity = "123456.12345678"
        api.placed(an_order(WIDEST, side=side, price=price, quantity=quantity, client_id="maker"))
    api.placed(an_order(WIDEST, price="9990.12345678", quantity="0.1", client_id="taker"))
    page = open_page(WIDEST)
    expect(page.find("#last")).to_have_text("9,990.12345678")
    expect(page.find(".level:enabled")).to_have_count(2)
    for viewport in (DESK, LAPTOP, PHONE):
        resize(page, viewport)
        assert page.page.evaluate(OVERLAPS) == [], viewport
        assert page.page.evaluate(CUT) == [], viewport
        assert page.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_the_longest_form_fits_every_screen(open_page: OpenPage, market: str) -> None:
    page = open_page(market)
    page.more_options()
    page.enter(price="1e3", quantity="0", time_in_force="gtd", display_quantity="5")
    page.submit()
    expect(page.complaint("expires_at")).not_to_have_text("")
    for what in (page.alert(), page.find("#submit")):
        expect(what).to_be_in_viewport(ratio=1)
    resize(page, PHONE)
    widths = "form => [form.scrollWidth, form.clientWidth]"
    inner, outer = page.find("#ticket").evaluate(widths)
    assert inner <= outer
    resize(page, PHONE_ON_ITS_SIDE)
    form = page.find(".panel.entry").bounding_box()
    assert form is not None
    assert form["height"] > PHONE_ON_ITS_SIDE["height"], (
        "the page scrolls, the form is not squeezed"
    )
    page.find("#submit").scroll_into_view_if_needed()
    expect(page.find("#submit")).to_be_in_viewport(ratio=1)


def candles(symbol: str) -> Json:
    """An hour of them, as the API would tell; each closes at its number."""
    made = []
    for number in range(1, CANDLES + 1):
        price = f"{number}.00"
        prices = dict.fromkeys(("open", "high", "low", "close"), price)
        start = f"2026-01-01T12:{number:02d}:00.000000Z"
        made.append({"start": start, **prices, "volume": "1.0000", "trades": 1, "vwap": price})
    return {"instrument": symbol, "interval": "1m", "candles": made}


def test_a_chart_that_was_out_of_sight_shows_the_newest_candles(
    open_page: OpenPage, market: str
) -> None:
    page = open_page(market, viewport=PHONE)
    page.page.route(
        lambda url: "/candles?" in url, lambda route: route.fulfill(json=candles(market))
    )
    page.page.reload()
    expect(page.find("#chart-legend")).to_contain_text(f"C {CANDLES}.00")

    def second_newest_is_in_its_place() -> bool:
        pane = page.find("#chart-canvas td:nth-child(2) canvas").first.bounding_box()
        if not pane:
            return False
        for away_px in range(2):  # the same place twice would be no movement
            right = pane["x"] + pane["width"] - (FREE_BARS + 1.5) * BAR_PX
            page.page.mouse.move(right, pane["y"] + pane["height"] / 2 + away_px)
        return f"C {CANDLES - 1}.00" in (page.find("#chart-legend").text_content() or "")

    for view in ("chart", "trade", "chart"):
        page.find(f"#view-{view}").click()
        if view == "chart":
            wait_for(second_newest_is_in_its_place)


def test_a_market_without_anything_says_so(open_page: OpenPage, market: str) -> None:
    page = open_page(market)
    expect(page.find("#chart-empty")).to_have_text("No trades yet")
    expect(page.find("#spread-value")).to_have_text("no orders")
    expect(page.find("#day-volume")).to_have_text(f"0 {market.partition('-')[0]}")
    *painted, text = page.page.evaluate(HEIGHTS)
    assert painted
    assert text > max(painted), "the chart is painted over it"


def test_more_open_orders_than_the_page_shows_are_counted_and_cancelled(
    open_page: OpenPage, api: Api, market: str
) -> None:
    for _ in range(SHOWN_HERE + 1):
        api.placed(an_order(market, price="1", quantity="1", client_id="hoarder"))
    page = open_page(market, "hoarder")
    limits = f"limit={SHOWN_MAX}", f"limit={SHOWN_HERE}"
    page.page.route(
        lambda url: limits[0] in url and "status=" in url,
        lambda route: route.continue_(url=route.request.url.replace(*limits)),
    )
    page.page.route(
        lambda url: "/orders?" in url and "status=" not in url,
        lambda route: (
            route.fallback() if route.request.method == "DELETE" else route.fulfill(json=NONE)
        ),
    )
    page.page.reload()
    expect(page.open_orders()).to_have_count(SHOWN_HERE)
    expect(page.find("#open-count")).to_have_text(f"{SHOWN_HERE}+")
    page.find("#cancel-all").click()
    expect(page.notices()).to_contain_text(f"{SHOWN_HERE + 1} cancelled")
    expect(page.find("#open-none")).to_be_visible()
    expect(page.find("#open-count")).to_have_text("0")
