// The tape: the last trades, newest first. Rows are used again and again.

import { painter } from "./painting.js";
import { byId, clock, element, grouped, parted } from "./text.js";

const ROWS = 60;

/** Whether one trade happened before another: by sequence, then by place within it. */
function isEarlier(trade, other) {
  if (trade.sequence !== other.sequence) return trade.sequence < other.sequence;
  return place(trade) < place(other);
}

function place(trade) {
  return Number(trade.trade_id.slice(trade.trade_id.lastIndexOf("-") + 1));
}

export class Tape {
  #list = byId("tape-rows");
  #newest = null; // the newest trade that is on the tape or about to be
  #fresh = []; // trades to be drawn, oldest first
  #held = null; // what came while earlier trades were asked for

  constructor() {
    this.draw = painter(() => this.#draw());
  }

  /** Begin again: until `load`, trades wait. */
  clear() {
    this.#newest = null;
    this.#fresh = [];
    this.#held = [];
    this.#list.replaceChildren();
  }

  /** Trades that were asked for, newest first; then those that came meanwhile. */
  load(trades) {
    const held = this.#held ?? [];
    this.#held = null;
    for (const trade of [...trades.slice(0, ROWS).reverse(), ...held]) this.trade(trade);
  }

  trade(trade) {
    if (this.#held) {
      this.#held.push(trade);
      if (this.#held.length > ROWS) this.#held.shift();
      return;
    }
    if (this.#newest && !isEarlier(this.#newest, trade)) return;
    this.#newest = trade;
    this.#fresh.push(trade);
    if (this.#fresh.length > ROWS) this.#fresh.shift(); // nobody looks: only the last ones count
    this.draw();
  }

  #draw() {
    for (const trade of this.#fresh) this.#list.prepend(this.#row(trade));
    this.#fresh = [];
  }

  #row(trade) {
    const row = this.#list.children.length < ROWS ? newRow() : this.#list.lastElementChild;
    const [price, quantity, time] = row.children;
    const [head, tail] = parted(trade.quantity);
    row.className = trade.side;
    price.firstChild.data = grouped(trade.price);
    price.lastChild.textContent = ` ${trade.side}`;
    quantity.firstChild.data = head;
    quantity.lastChild.textContent = tail;
    time.firstChild.data = clock(trade.timestamp);
    return row;
  }
}

function newRow() {
  const price = element("span", { className: "price" }, " ");
  price.append(element("span", { className: "unseen" }));
  const quantity = element("span", { className: "quantity" }, " ", element("i"));
  return element("li", {}, price, quantity, element("span", { className: "time" }, " "));
}
