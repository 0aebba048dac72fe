// The order book as a ladder of price levels. Its rows are places that stay where they are; only
// what changed in one is written. A level can be chosen by pointer or keys.

import { share, toText } from "./decimal.js";
import { painter } from "./painting.js";
import { byId, element, grouped, parted, setText } from "./text.js";

const ROW_PX = 20;
const ROWS_MIN = 4;
const ROWS_MAX = 40;
const PERCENT_DECIMALS = 3;
const GROUPINGS = 5;
const GROUPING_FACTOR = 10n;

/** A number whose last zeros are dimmer than the rest. */
class Figure {
  constructor(className) {
    this.head = document.createTextNode("");
    this.tail = document.createTextNode("");
    this.node = element("span", { className }, this.head, element("i", {}, this.tail));
  }

  show(text) {
    const [head, tail] = text === "" ? ["", ""] : parted(text);
    if (this.head.data !== head) this.head.data = head;
    if (this.tail.data !== tail) this.tail.data = tail;
  }
}

/** One place in the ladder. */
class Place {
  #shown = {};

  constructor(side) {
    this.price = element("span", { className: "price" });
    this.quantity = new Figure("quantity");
    this.cumulative = new Figure("cumulative");
    this.bar = element("span", { className: "bar" });
    this.node = element("button", { type: "button", className: `level ${side}`, tabIndex: -1 });
    const word = side === "sell" ? "ask " : "bid ";
    const spoken = element("span", { className: "unseen", textContent: word });
    this.node.append(this.bar, spoken, this.price, this.quantity.node, this.cumulative.node);
    this.node.level = null;
  }

  show(row, instrument, largest, isMine) {
    const shown = this.#shown;
    this.node.level = row ? { ...row } : null;
    const price = row ? grouped(instrument.price.text(row.price)) : "";
    if (shown.price !== price) {
      this.price.textContent = shown.price = price;
      this.node.disabled = !row;
    }
    if (shown.quantity !== row?.quantity) {
      shown.quantity = row?.quantity;
      this.quantity.show(row ? instrument.quantity.text(row.quantity) : "");
    }
    if (shown.cumulative !== row?.cumulative) {
      shown.cumulative = row?.cumulative;
      this.cumulative.show(row ? instrument.quantity.text(row.cumulative) : "");
    }
    this.#mark(row ? share(row.cumulative, largest) : 0, isMine);
  }

  #mark(length, isMine) {
    if (this.#shown.length !== length) {
      this.#shown.length = length;
      this.bar.style.transform = `scaleX(${length})`;
    }
    if (this.#shown.isMine !== isMine) {
      this.#shown.isMine = isMine;
      this.node.classList.toggle("mine", isMine);
      this.node.title = isMine ? "You have an order here" : "";
    }
  }
}

export class Ladder {
  #book = null;
  #mine = [];
  #sides = { asks: [], bids: [] };
  #grouping = byId("grouping");

  /** `choose` is called with {price, cumulative, side, isWhole} of a level that was chosen. */
  constructor(choose) {
    this.choose = choose;
    this.draw = painter(() => this.#draw());
    this.root = byId("ladder");
    this.#grouping.addEventListener("change", this.draw);
    this.#listen();
    this.#resize(); // so that there is a row to be measured
    const sizes = new ResizeObserver(() => this.#resize());
    for (const node of [this.root, byId("spread")]) sizes.observe(node);
  }

  /** Show another book. */
  show(book) {
    this.#book = book;
    this.#offerGroupings(book.instrument);
    this.draw();
  }

  /** Prices (units) of one's own open orders. */
  mark(prices) {
    this.#mine = prices;
    this.draw();
  }

  #offerGroupings(instrument) {
    const { step, decimals } = instrument.price;
    const steps = Array.from({ length: GROUPINGS }, (_, i) => step * GROUPING_FACTOR ** BigInt(i));
    const options = steps.map((each) =>
      element("option", { value: String(each), textContent: toText(each, decimals) }),
    );
    this.#grouping.replaceChildren(...options);
  }

  #resize() {
    const room = (this.root.clientHeight - byId("spread").offsetHeight) / 2;
    const height = this.#sides.asks[0]?.node.offsetHeight || ROW_PX; // fingers get higher rows
    const count = Math.max(ROWS_MIN, Math.min(ROWS_MAX, Math.floor(room / height)));
    for (const [name, side] of Object.entries(this.#sides)) {
      while (side.length > count) side.pop().node.remove();
      while (side.length < count) {
        const place = new Place(name === "asks" ? "sell" : "buy");
        byId(name).append(place.node);
        side.push(place);
      }
    }
    this.draw();
  }

  #draw() {
    if (!this.#book) return;
    const { instrument, asks, bids } = this.#book;
    const step = BigInt(this.#grouping.value);
    const count = this.#sides.asks.length;
    const rows = { asks: asks.rows(step, count), bids: bids.rows(step, count) };
    const focused = document.activeElement;
    const ends = [rows.asks.at(-1)?.cumulative ?? 0n, rows.bids.at(-1)?.cumulative ?? 0n];
    const largest = ends[0] > ends[1] ? ends[0] : ends[1];
    for (const [name, places] of Object.entries(this.#sides)) {
      places.forEach((place, i) => {
        const row = rows[name][i];
        place.show(row, instrument, largest, row !== undefined && this.#isMine(row, name, step));
      });
    }
    this.#keepOneReachable();
    if (focused?.disabled && this.root.contains(focused)) this.#nearest(focused).focus();
    this.#drawSpread(instrument, asks.levels[0], bids.levels[0]);
  }

  #isMine({ price }, name, step) {
    const [low, high] = name === "asks" ? [price - step + 1n, price] : [price, price + step - 1n];
    return this.#mine.some((each) => each >= low && each <= high);
  }

  #drawSpread(instrument, ask, bid) {
    if (!ask || !bid) {
      setText(byId("spread-value"), ask || bid ? "one side only" : "no orders");
      return;
    }
    const spread = ask.price - bid.price;
    const scaled = (spread * 2n * 10n ** BigInt(2 + PERCENT_DECIMALS)) / (ask.price + bid.price);
    const percent = toText(scaled, PERCENT_DECIMALS);
    const text = `${grouped(instrument.price.text(spread))} · ${percent} %`;
    setText(byId("spread-value"), `Spread ${text}`);
  }

  // Choosing a level

  #listen() {
    let pressed = null;
    // Levels move: what counts is what was there when it was pressed.
    this.root.addEventListener("pointerdown", ({ target }) => {
      pressed = target.closest(".level")?.level ?? null;
    });
    this.root.addEventListener("click", (event) => {
      const node = event.target.closest(".level");
      const level = event.detail > 0 ? pressed : node?.level;
      if (node && level) this.#chosen(node, level, event.shiftKey);
    });
    this.root.addEventListener("keydown", (event) => this.#step(event));
  }

  #chosen(node, level, isWhole) {
    const side = node.classList.contains("sell") ? "sell" : "buy";
    this.choose({ price: level.price, cumulative: level.cumulative, side, isWhole });
  }

  #nodes() {
    const asks = this.#sides.asks.map((place) => place.node).reverse();
    return [...asks, ...this.#sides.bids.map((place) => place.node)];
  }

  /** Arrow keys go from level to level; Tab goes past the ladder. */
  #step(event) {
    const steps = { ArrowUp: -1, ArrowDown: 1 };
    if (!(event.key in steps)) return;
    const nodes = this.#nodes().filter((node) => !node.disabled);
    const next = nodes[nodes.indexOf(document.activeElement) + steps[event.key]];
    if (!next) return;
    event.preventDefault();
    for (const node of nodes) node.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  /** Where the focus goes from a level that is gone: to what is left of its side, else to the best
   * of the other; with no level at all it waits on the ladder. */
  #nearest(gone) {
    const { asks, bids } = this.#sides;
    const [own, other] = asks.some(({ node }) => node === gone) ? [asks, bids] : [bids, asks];
    const left = own.filter(({ node }) => !node.disabled);
    const next = left.at(-1) ?? other.find(({ node }) => !node.disabled);
    if (!next) return this.root;
    for (const node of this.#nodes()) node.tabIndex = node === next.node ? 0 : -1;
    return next.node;
  }

  /** Tab comes to the level that it was left at, or, when that is gone, to the best of a side. */
  #keepOneReachable() {
    const left = this.#nodes().filter((node) => node.tabIndex === 0);
    if (left.some((node) => !node.disabled)) return;
    const { asks, bids } = this.#sides;
    const best = [asks[0].node, bids[0].node].find((node) => !node.disabled);
    if (!best) return;
    for (const node of left) node.tabIndex = -1;
    best.tabIndex = 0;
  }
}
