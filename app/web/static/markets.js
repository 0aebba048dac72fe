// The switcher of instruments: a list with last prices and the day's changes, filtered by typing.

import { get } from "./rest.js";
import { byId, direction, element, grouped, setText, signed } from "./text.js";

const REFRESH_MS = 3_000;
const SHOWN_MAX = 100;

export class Markets {
  #dialog = byId("markets");
  #filter = byId("markets-filter");
  #list = byId("markets-list");
  #symbols = [];
  #tickers = new Map();

  /** `choose` is called with the symbol that was chosen. */
  constructor(choose) {
    this.choose = choose;
    byId("market-open").addEventListener("click", () => this.open());
    byId("markets-close").addEventListener("click", () => this.#dialog.close());
    this.#filter.addEventListener("input", () => this.#draw());
    this.#dialog.addEventListener("keydown", (event) => this.#step(event));
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close(); // beside it
      const row = event.target.closest("[data-symbol]");
      if (row) this.#chosen(row.dataset.symbol);
    });
    setInterval(() => this.#dialog.open && this.#ask(), REFRESH_MS);
  }

  list(symbols) {
    this.#symbols = symbols;
  }

  open() {
    this.#filter.value = "";
    this.#dialog.showModal();
    this.#filter.focus();
    this.#draw();
    this.#ask();
  }

  #chosen(symbol) {
    this.#dialog.close();
    this.choose(symbol);
  }

  async #ask() {
    try {
      const { tickers } = await get("/ticker");
      this.#tickers = new Map(tickers.map((ticker) => [ticker.instrument, ticker]));
      this.list([...this.#tickers.keys()]); // some may have been listed since
      this.#draw();
    } catch {
      // The list is good without prices; the banner says what is wrong.
    }
  }

  #draw() {
    const wanted = this.#filter.value.trim().toUpperCase();
    const found = this.#symbols.filter((symbol) => symbol.includes(wanted)).slice(0, SHOWN_MAX);
    const known = [...this.#list.children];
    const rows = new Map(known.map((row) => [row.dataset.symbol, row]));
    const wantedRows = found.map((symbol) => this.#row(rows.get(symbol), symbol));
    const isSame =
      known.length === wantedRows.length && known.every((row, i) => row === wantedRows[i]);
    if (!isSame) this.#list.replaceChildren(...wantedRows); // a row that is moved loses the focus
    byId("markets-none").hidden = found.length > 0;
  }

  #row(known, symbol) {
    const row = known ?? newRow(symbol);
    const ticker = this.#tickers.get(symbol);
    const change = ticker?.change_24h_percent ?? null;
    setText(row.children[1], ticker?.last ? grouped(ticker.last) : "–");
    setText(row.children[2], change === null ? "–" : `${signed(change)} %`);
    row.children[2].className = `change ${direction(change)}`;
    return row;
  }

  /** Arrow keys walk the list; Enter in the field takes the first. */
  #step(event) {
    const rows = [...this.#list.children];
    const at = rows.indexOf(document.activeElement);
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps) {
      event.preventDefault();
      (rows[at + steps[event.key]] ?? this.#filter).focus();
    } else if (event.key === "Enter" && at < 0 && event.target === this.#filter && rows[0]) {
      event.preventDefault();
      this.#chosen(rows[0].dataset.symbol);
    }
  }
}

function newRow(symbol) {
  const row = element("button", { type: "button" });
  row.dataset.symbol = symbol;
  row.append(
    element("span", { className: "symbol", textContent: symbol }),
    element("span", { className: "last" }),
    element("span", { className: "change" }),
  );
  return row;
}
