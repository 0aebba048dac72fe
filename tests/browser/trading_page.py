"""The trading page in the words of a trader: open it, read the ladder, place, amend, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Locator, Page

    from tests.rest import Api

DESK = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
WATCH = """
addEventListener("securitypolicyviolation", (event) => {
  console.error("violated", event.violatedDirective, event.blockedURI);
});
"""
LADDER = """
(side) => [...document.querySelectorAll(`#${side} .level:enabled`)].map((level) =>
  [level.querySelector(".price"), level.querySelector(".quantity")].map((each) =>
    each.textContent.replaceAll(",", "")))
"""


class TradingPage:
    """One page in a fresh profile. `faults` are what no page may do."""

    def __init__(
        self,
        browser: Browser,
        api: Api,
        symbol: str,
        client: str,
        **options: Any,  # noqa: ANN401  # of the browser's profile
    ) -> None:
        self.url = f"http://127.0.0.1:{api.port}/"
        self.symbol = symbol
        self.faults: list[str] = []
        self.hosts: set[str] = set()
        context = browser.new_context(**{"viewport": DESK, **options})
        # What an earlier visit would have kept; a page that keeps something else keeps that.
        kept = f'localStorage.getItem("{{0}}") ?? localStorage.setItem("{{0}}", "{client}");'
        context.add_init_script(WATCH + kept.format("crossbook.client"))
        self.page: Page = context.new_page()
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._hear)
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.on("websocket", lambda socket: self.hosts.add(urlsplit(socket.url).netloc))

    def _hear(self, message: ConsoleMessage) -> None:
        # The browser itself writes down each answer that is no success, or does not come.
        by_browser = message.text.startswith(("Failed to load resource", "WebSocket connection to"))
        if message.type == "error" and not by_browser:
            self.faults.append(message.text)

    def open(self) -> None:
        """Returns when the book is there."""
        self.page.goto(f"{self.url}#{self.symbol}")
        self.page.wait_for_selector("body[data-connection='live'][data-sequence]")

    def close(self) -> None:
        """The profile goes with it."""
        own = urlsplit(self.url).netloc
        self.faults += [f"foreign host {host}" for host in self.hosts - {own, ""}]
        self.page.context.close()

    # Reading

    def find(self, selector: str) -> Locator:
        """Whatever else is on the page."""
        return self.page.locator(selector)

    @property
    def sequence(self) -> int:
        """What the page's book stands at."""
        return int(self.page.evaluate("Number(document.body.dataset.sequence)"))

    def ladder(self, side: str) -> list[tuple[str, str]]:
        """Price and quantity of the levels that are shown, best first; `side` is bids or asks."""
        return [(price, quantity) for price, quantity in self.page.evaluate(LADDER, side)]

    def level(self, price: str) -> Locator:
        """The ladder's row at a price, as the ladder writes it."""
        return self.page.locator(".level:enabled", has_text=price)

    def open_orders(self) -> Locator:
        """Rows of the table of open orders."""
        return self.page.locator("#open-table tbody tr")

    def alert(self) -> Locator:
        """Why the last order was refused."""
        return self.page.locator("#ticket-alert")

    def complaint(self, field: str) -> Locator:
        """What is wrong with one field of the order form."""
        return self.page.locator(f'#ticket [data-complaint="{field}"]')

    def notices(self) -> Locator:
        """Short messages."""
        return self.page.locator("#notices")

    # Doing

    def choose(self, name: str, value: str) -> None:
        """One of several in the order form: side or type."""
        self.page.locator(f'#ticket input[name="{name}"][value="{value}"]').check()

    def enter(self, **fields: str) -> None:
        """Fill fields of the order form by their names."""
        for name, value in fields.items():
            field = self.page.locator(f'#ticket [name="{name}"]')
            if field.evaluate("field => field.tagName") == "SELECT":
                field.select_option(value)
            else:
                field.fill(value)

    def more_options(self) -> None:
        """Open the part of the form that is folded."""
        self.page.locator("#ticket summary").click()

    def submit(self) -> None:
        """Send the order; returns when there is an answer."""
        self.page.locator("#submit").click()
        expect(self.page.locator("#ticket")).not_to_have_attribute("aria-busy", "true")

    def place(self, side: str, price: str, quantity: str) -> None:
        """A limit order."""
        self.choose("side", side)
        self.enter(price=price, quantity=quantity)
        self.submit()
