// Own trades: found among all trades by the own orders that they filled.

import { byId, element, grouped, moment, trimmed, words } from "./text.js";

const FILLS_MAX = 200;
/** Trades kept until the news of the order that they filled arrives, which is right behind them. */
const RECENT_MAX = 1_000;

export class Fills {
  #body = byId("fills-table").tBodies[0];
  #recent = [];
  #shown = new Set();

  /** `isOwn` tells whether an order id is one's own. */
  constructor(isOwn) {
    this.isOwn = isOwn;
  }

  clear() {
    this.#recent = [];
    this.#shown.clear();
    this.#body.replaceChildren();
  }

  /** Any trade of the market. */
  trade(trade) {
    this.#recent.push(trade);
    if (this.#recent.length > 2 * RECENT_MAX) this.#recent.splice(0, RECENT_MAX);
  }

  /** An own order as it is now: its trades, if any, are those of the same event. */
  order(order) {
    for (let i = this.#recent.length - 1; i >= 0; i -= 1) {
      const trade = this.#recent[i];
      if (trade.sequence < order.sequence) break;
      const isOfIt = [trade.maker_order_id, trade.taker_order_id].includes(order.order_id);
      if (trade.sequence === order.sequence && isOfIt) this.#add(trade);
    }
  }

  /** Earlier trades, newest first: those that are own ones. */
  load(trades) {
    for (const trade of [...trades].reverse()) {
      if (this.isOwn(trade.maker_order_id) || this.isOwn(trade.taker_order_id)) this.#add(trade);
    }
  }

  #add(trade) {
    if (this.#shown.has(trade.trade_id)) return;
    this.#shown.add(trade.trade_id);
    for (const side of this.#sides(trade)) this.#body.prepend(row(trade, side));
    while (this.#body.rows.length > FILLS_MAX) this.#body.lastElementChild.remove();
    if (this.#shown.size > 2 * FILLS_MAX) this.#shown.delete(this.#shown.values().next().value);
  }

  /** What the trade was to us: both where our orders met each other. */
  #sides({ side, maker_order_id, taker_order_id }) {
    const other = side === "buy" ? "sell" : "buy";
    const found = [];
    if (this.isOwn(taker_order_id)) found.push({ side, role: "Taker" });
    if (this.isOwn(maker_order_id)) found.push({ side: other, role: "Maker" });
    return found;
  }
}

const COLUMNS = ["Time (UTC)", "Side", "Price", "Quantity", "Role"];

function row(trade, { side, role }) {
  const texts = [
    moment(trade.timestamp),
    words(side),
    grouped(trade.price),
    grouped(trimmed(trade.quantity)),
    role,
  ];
  const classes = ["time", "side", "price", "quantity", "status"];
  const made = element("tr");
  made.dataset.side = side;
  texts.forEach((textContent, i) => {
    const cell = element("td", { className: classes[i], textContent });
    cell.dataset.label = COLUMNS[i];
    made.append(cell);
  });
  return made;
}
