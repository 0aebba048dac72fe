// Tables of own orders: the open ones with amend and cancel, and those that are over. A row stays
// the same element while its order lives, so focus stays where it is.

import { toUnits, share } from "./decimal.js";
import { reasonInWords, statusInWords } from "./refusals.js";
import { byId, element, grouped, moment, setText, trimmed, words } from "./text.js";

function cell(name, label) {
  const made = element("td", { className: name });
  made.dataset.label = label;
  return made;
}

function priceText(order) {
  const stop = order.stop_price === null ? "" : `stop ${grouped(order.stop_price)}`;
  const price = order.price === null ? "" : grouped(order.price);
  return [price, stop].filter(Boolean).join(" · ") || "Market";
}

function typeText(order) {
  const extra = [
    order.time_in_force === "gtc" ? "" : order.time_in_force.toUpperCase(),
    order.post_only ? "post-only" : "",
    order.display_quantity ? "iceberg" : "",
  ];
  return [words(order.type), ...extra.filter(Boolean)].join(" · ");
}

function filledShare(order) {
  const decimals = order.quantity.split(".")[1]?.length ?? 0;
  const [filled, quantity] = [order.filled_quantity, order.quantity];
  return share(toUnits(filled, decimals), toUnits(quantity, decimals));
}

const COLUMNS = {
  time: { label: "Time (UTC)", text: (order) => moment(order.created_at) },
  ended: { label: "Time (UTC)", text: (order) => moment(order.updated_at) },
  side: { label: "Side", text: (order) => words(order.side) },
  type: { label: "Type", text: typeText },
  price: { label: "Price", text: priceText },
  average: { label: "Average", text: (order) => grouped(order.average_price ?? "–") },
  quantity: { label: "Quantity", text: (order) => grouped(trimmed(order.quantity)) },
  filled: { label: "Filled", text: (order) => grouped(trimmed(order.filled_quantity)) },
  status: { label: "Status", text: (order) => statusText(order) },
};

function statusText(order) {
  const status = statusInWords(order.status);
  const reason = reasonInWords(order.reason);
  return reason ? `${status}: ${reason}` : status;
}

class Row {
  #sequence = null;
  #buttons = [];

  constructor(order, columns, actions) {
    this.cells = columns.map((name) => cell(name, COLUMNS[name].label));
    this.columns = columns;
    this.node = element("tr", {}, ...this.cells);
    if (actions) this.node.append(this.#actions(actions));
    this.node.dataset.order = order.order_id;
    this.show(order);
  }

  show(order) {
    if (this.#sequence === order.sequence) return;
    this.#sequence = order.sequence;
    this.order = order;
    this.columns.forEach((name, i) => setText(this.cells[i], COLUMNS[name].text(order)));
    this.node.dataset.side = order.side;
    const bar = element("span");
    bar.style.transform = `scaleX(${filledShare(order)})`;
    const filled = this.cells[this.columns.indexOf("filled")];
    filled.querySelector(".progress")?.remove();
    filled.append(element("span", { className: "progress" }, bar));
    this.#nameButtons(order);
  }

  /** Whoever hears a button alone hears of which order it is, as that is now. */
  #nameButtons(order) {
    const of = `${order.side} order for ${trimmed(order.quantity)} at ${priceText(order)}`;
    for (const button of this.#buttons) {
      button.setAttribute("aria-label", `${button.textContent} ${of}`);
    }
  }

  #actions({ amend, cancel }) {
    const made = cell("actions", "");
    for (const [text, action] of [
      ["Amend", amend],
      ["Cancel", cancel],
    ]) {
      const button = element("button", { type: "button", className: "small", textContent: text });
      button.addEventListener("click", () => action(this.order, button));
      this.#buttons.push(button);
      made.append(button);
    }
    return made;
  }
}

export class OrdersTable {
  #rows = new Map();

  /** `actions` are {amend, cancel}, where there are any. */
  constructor(id, columns, actions) {
    this.body = byId(id).tBodies[0];
    this.columns = columns;
    this.actions = actions;
    const heads = columns.map((name) => {
      return element("th", { scope: "col", className: name, textContent: COLUMNS[name].label });
    });
    if (actions) {
      const unseen = element("span", { className: "unseen", textContent: "Actions" });
      heads.push(element("th", { scope: "col", className: "actions" }, unseen));
    }
    byId(id).tHead.rows[0].replaceChildren(...heads);
  }

  show(orders) {
    const wanted = new Set(orders.map((order) => order.order_id));
    for (const [id, row] of this.#rows) if (!wanted.has(id)) this.#remove(id, row);
    let before = this.body.firstElementChild;
    for (const order of orders) {
      const row = this.#row(order);
      if (row.node === before) before = before.nextElementSibling;
      else this.body.insertBefore(row.node, before);
    }
  }

  #row(order) {
    const known = this.#rows.get(order.order_id);
    if (known) {
      known.show(order);
      return known;
    }
    const made = new Row(order, this.columns, this.actions);
    this.#rows.set(order.order_id, made);
    return made;
  }

  /** Whoever was on a row that goes finds himself on its neighbour, not at the top of the page. */
  #remove(id, row) {
    this.#rows.delete(id);
    const hadFocus = row.node.contains(document.activeElement);
    const neighbour = row.node.nextElementSibling ?? row.node.previousElementSibling;
    row.node.remove();
    if (hadFocus) (neighbour?.querySelector("button:last-child") ?? byId("tab-open")).focus();
  }
}
