"""What holds of the page whoever trades on it: it asks nobody else for anything and runs nothing
else, everybody can use it, and its numbers are exact.
"""

import random
import time
from collections.abc import Callable
from decimal import Decimal

import pytest
from playwright.sync_api import expect

from app.web import assets
from tests.browser.conftest import OpenPage
from tests.browser.trading_page import PHONE
from tests.rest import Api, an_order
from tests.system import System

FIRST_PAINT_S = 1.0
AA = 4.5
AA_LARGE = 3.0

CONTRASTS = """
() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const over = (top, below) => ({
    r: top.r * top.a + below.r * (1 - top.a),
    g: top.g * top.a + below.g * (1 - top.a),
    b: top.b * top.a + below.b * (1 - top.a),
    a: 1,
  });
  const ground = (node) => {
    const layers = [];
    for (let each = node; each; each = each.parentElement) {
      layers.push(parse(getComputedStyle(each).backgroundColor));
      // The depth bar lies over its row, below the row's text.
      const bar = each.querySelector(":scope > .bar");
      if (bar) layers.push(parse(getComputedStyle(bar).backgroundColor));
    }
    return layers.reverse().reduce((below, top) => over(top, below));
  };
  const light = ({ r, g, b }) => {
    const [x, y, z] = [r, g, b].map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const texts = [...node.childNodes].filter((each) => each.nodeType === 3 && each.data.trim());
    const field = node.matches("input:not([type=radio]), select") && node.value;
    if ((!texts.length && !field) || !node.checkVisibility({ visibilityProperty: true })) continue;
    if (node.closest(":disabled, .unseen, .skip, noscript")) continue;
    const style = getComputedStyle(node);
    const [one, other] = [light(over(parse(style.color), ground(node))), light(ground(node))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const what = `${node.tagName}.${node.className} ${node.textContent.trim().slice(0, 20)}`;
    found.push([what, ratio, isLarge]);
  }
  return found;
}
"""
TARGETS = """
() => [...document.querySelectorAll("a, button, input, select, summary, [tabindex]")]
  .filter((node) => !node.disabled && node.checkVisibility({ visibilityProperty: true }))
  .map((node) => node.id || node.name || node.textContent.trim())
"""
NAMELESS = """
() => [...document.querySelectorAll("a, button, input, select, summary, dialog, [role]")]
  .filter((node) => {
    if (node.disabled || !node.checkVisibility({ visibilityProperty: true })) return false;
    const by = (node.getAttribute("aria-labelledby") ?? "").split(" ");
    const label = by.map((id) => document.getElementById(id)?.textContent ?? "").join("");
    const labels = [...(node.labels ?? [])].map((each) => each.textContent).join("");
    const own = node.matches("input, select, dialog") ? "" : node.textContent;
    const name = node.getAttribute("aria-label") ?? (label || labels || own);
    return !name.trim() && !["alert", "log", "status"].includes(node.getAttribute("role"));
  })
  .map((node) => node.outerHTML.slice(0, 100))
"""


@pytest.fixture
def within_a_minute(system: System, market: str) -> None:
    """What trades there does so in one minute: the book's clock is never earlier than an hour from
    now, and stands still until then.
    """
    system.redis.hset(f"{{{market}}}:book", "time", (int(time.time()) + 3600) * 1_000_000)


@pytest.fixture
def traded(api: Api, market: str) -> str:
    """A market with levels on both sides and trades up and down."""
    for side, price in (("buy", "99"), ("buy", "98.5"), ("sell", "101"), ("sell", "101.5")):
        api.placed(an_order(market, side=side, price=price, quantity="2", client_id="maker"))
    for side, price in (("buy", "101"), ("sell", "99"), ("buy", "101")):
        api.placed(an_order(market, side=side, price=price, quantity="0.5", client_id="taker"))
    return market


def test_the_page_may_run_and_reach_nothing_but_its_own_host(api: Api) -> None:
    answer = api.request("GET", "/")
    assert answer.status == 200
    policy = dict(
        part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert (policy["base-uri"], policy["frame-ancestors"]) == ("'none'", "'none'")
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert b"style=" not in answer.body
    assert b"http://" not in answer.body


def test_files_of_the_page_are_asked_for_again_and_sent_once(api: Api) -> None:
    for path in ("/", "/assets/main.js", "/assets/base.css", "/assets/icon.svg"):
        first = api.request("GET", path)
        assert first.status == 200, path
        assert first.headers["Cache-Control"] == "no-cache"
        again = api.request("GET", path, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status, again.body) == (304, b"")
        other = api.request("GET", path, headers={"If-None-Match": '"another"'})
        assert other.body == first.body
        assert api.request("HEAD", path).body == b""
    for path in ("/assets/none.js", "/assets/..%2fassets.py", "/assets/%2e%2e/page.py"):
        assert api.request("GET", path).status == 404
    assert api.request("POST", "/").status == 405


def test_every_module_is_named_in_the_page_so_that_all_load_at_once(api: Api) -> None:
    page = api.request("GET", "/").body.decode()
    files = {path.name for path in assets.FOLDER.iterdir()} - {assets.INDEX}
    assert [name for name in files if page.count(f'"/assets/{name}"') == 0] == []


def test_it_is_there_within_a_second(
    open_page: OpenPage, traded: str, summary: Callable[[str], None]
) -> None:
    page = open_page(traded)
    paints: list[float] = []
    for _ in range(3):  # one may meet a moment in which the machine is busy
        page.page.reload()
        page.page.wait_for_selector("body[data-connection='live'][data-sequence]")
        paints += page.page.evaluate(
            "performance.getEntriesByName('first-contentful-paint').map((entry) => entry.startTime)"
        )
    assert len(paints) == 3
    summary(f"first contentful paint after {', '.join(f'{paint:.0f}' for paint in paints)} ms")
    assert min(paints) < FIRST_PAINT_S * 1000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(open_page: OpenPage, traded: str, scheme: str) -> None:
    page = open_page(traded, color_scheme=scheme)
    page.more_options()
    page.place("buy", "50", "1")
    page.place("sell", "1e3", "1")  # with complaints
    expect(page.complaint("price")).not_to_have_text("")
    expect(page.find("#tape-rows li")).to_have_count(3)
    found = page.page.evaluate(CONTRASTS)
    assert len(found) > 60
    poor = [(what, ratio) for what, ratio, large in found if ratio < (AA_LARGE if large else AA)]
    assert poor == []


def test_the_theme_can_be_chosen_and_is_kept(open_page: OpenPage, traded: str) -> None:
    page = open_page(traded, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.page.evaluate(ground)
    for _ in range(2):  # system, light, dark
        page.find("#theme").click()
    dark = page.page.evaluate(ground)
    assert light != dark
    page.page.reload()
    assert page.page.evaluate(ground) == dark


def test_an_order_is_placed_and_cancelled_without_a_pointer(
    open_page: OpenPage, traded: str
) -> None:
    page = open_page(traded, "typist")
    keys = page.page.keyboard
    assert page.page.evaluate(NAMELESS) == []
    reached = []
    for _ in page.page.evaluate(TARGETS):
        keys.press("Tab")
        reached.append(page.page.evaluate("document.activeElement.id"))
    assert {"market-open", "client", "theme", "price", "quantity", "submit", "tab-open"} <= set(
        reached
    )
    page.find(".level[tabindex='0']").focus()
    keys.press("ArrowDown")  # from the best ask to the best bid
    keys.press("Enter")
    expect(page.find("#price")).to_have_value("99.00")
    expect(page.find("#quantity")).to_be_focused()
    keys.type("1")
    keys.press("ArrowUp")
    expect(page.find("#quantity")).to_have_value("1.0001")
    keys.press("Enter")
    expect(page.open_orders()).to_have_count(1)
    page.find("#tab-open").focus()
    keys.press("ArrowRight")
    expect(page.find("#tab-fills")).to_have_attribute("aria-selected", "true")
    keys.press("ArrowLeft")
    page.open_orders().get_by_role("button", name="Cancel").focus()
    keys.press("Enter")
    expect(page.open_orders()).to_have_count(0)
    expect(page.find("#tab-open")).to_be_focused()


def test_single_keys_can_be_turned_off(open_page: OpenPage, traded: str) -> None:
    page = open_page(traded)
    page.page.keyboard.press("s")
    expect(page.find("#submit")).to_have_text("Sell " + traded.split("-", maxsplit=1)[0])
    page.page.evaluate("document.activeElement.blur()")
    page.page.keyboard.press("?")
    page.find("#shortcuts").uncheck()
    page.find("#help-close").click()
    page.page.evaluate("document.activeElement.blur()")
    page.page.keyboard.press("b")
    expect(page.find("#submit")).to_have_text("Sell " + traded.split("-", maxsplit=1)[0])


def test_a_phone_shows_one_view_at_a_time_and_nothing_beside_it(
    open_page: OpenPage, traded: str
) -> None:
    page = open_page(traded, "walker", viewport=PHONE, is_mobile=True, has_touch=True)
    for view, shown in (("chart", ".canvas"), ("orders", "#panel-open"), ("trade", "#ticket")):
        page.find(f"#view-{view}").tap()
        expect(page.find(shown)).to_be_visible()
        width = page.page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], view
    page.level("99.00").tap()
    page.enter(quantity="1")
    page.find("#submit").tap()
    page.find("#view-orders").tap()
    expect(page.open_orders()).to_contain_text("99.00")


def test_the_chart_shows_what_traded(
    open_page: OpenPage, api: Api, within_a_minute: None, traded: str
) -> None:
    if assets.CHART_NAME not in assets.load():
        pytest.fail("the chart library is missing: python -m app.web.chart_library")
    page = open_page(traded)
    expect(page.find("#chart-legend")).to_contain_text("C 101.00  Vol 1.5")
    api.placed(an_order(traded, side="sell", price="99", quantity="0.5", client_id="taker"))
    expect(page.find("#chart-legend")).to_contain_text("C 99.00")
    expect(page.find("#chart-legend")).to_contain_text("Vol 2")
    assert page.find("#chart-canvas canvas").count() > 0
    expect(page.find(".credit")).to_have_attribute("href", "https://www.tradingview.com/")


def test_without_the_chart_library_the_rest_works(open_page: OpenPage, traded: str) -> None:
    page = open_page(traded, "chartless")
    page.page.route("**/lightweight-charts.mjs", lambda route: route.fulfill(status=404))
    page.page.reload()
    expect(page.find("#chart-missing")).to_be_visible()
    expect(page.find("#chart-missing")).to_contain_text("The chart is not installed")
    page.place("buy", "50", "1")
    expect(page.open_orders()).to_have_count(1)


def test_numbers_of_the_page_are_exact(
    open_page: OpenPage, traded: str, rng: random.Random
) -> None:
    cases = []
    for _ in range(2_000):
        units = rng.randrange(-(10**24), 10**24) // 10 ** rng.randrange(24)
        cases.append((str(units), rng.randrange(19), rng.randrange(19)))
    script = """
        async (cases) => {
          const exact = await import("/assets/decimal.js");
          return cases.map(([units, from, to]) => {
            const text = exact.toText(BigInt(units), from);
            const back = exact.toUnits(text, from);
            return [text, String(back), String(exact.rescale(BigInt(units), from, to))];
          });
        }
    """
    answers = open_page(traded).page.evaluate(script, cases)
    for (units, decimals, to), (text, back, rescaled) in zip(cases, answers, strict=True):
        value = Decimal(units).scaleb(-decimals)
        assert text == f"{value:.{decimals}f}"
        assert back == units
        assert rescaled == str(round(value.scaleb(to)))


def test_a_sum_of_the_day_keeps_its_length_while_it_grows(open_page: OpenPage, market: str) -> None:
    cases = {
        "0.00000000": "0",
        "0": "0",
        "12": "12",
        "24.91789060": "24.9178",
        "25.00000000": "25.0000",
        "999999.9": "999,999",
        "1602117.12000000": "1,602,117",
        "0.00000030123456789": "0.000000301234",
    }
    script = "async (sums) => sums.map((await import('/assets/text.js')).roughly)"
    assert open_page(market).page.evaluate(script, list(cases)) == list(cases.values())
