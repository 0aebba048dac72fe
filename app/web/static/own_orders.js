// The orders of one client in one instrument: of open ones a thousand, of those that are over the
// last. What is asked for and what comes by itself are joined by sequence, so the newest state wins.

import { get } from "./rest.js";

const OPEN = new Set(["open", "partially_filled", "pending"]);
/** As many as one page of the API has. */
export const OPEN_MAX = 1_000;
const OVER_MAX = 100;

export function isOpen(order) {
  return OPEN.has(order.status);
}

export class OwnOrders {
  #orders = new Map();
  #came = new Map(); // since the last `load` began
  #loads = 0;
  #hasMore = false;

  /** `changed` is called when anything is different. */
  constructor(changed) {
    this.changed = changed;
  }

  /** Ask for all of them anew. */
  async load(instrument, client_id) {
    const load = ++this.#loads;
    this.#came = new Map();
    const query = { instrument, client_id };
    const pages = [...OPEN].map((status) => get("/orders", { ...query, status, limit: OPEN_MAX }));
    pages.push(get("/orders", { ...query, limit: OVER_MAX }));
    const results = await Promise.allSettled(pages);
    if (load !== this.#loads) return;
    const failed = results.find(({ status }) => status === "rejected");
    const found = results.flatMap(({ value }) => value?.orders ?? []);
    if (!failed) this.#orders = new Map();
    this.#hasMore = results.slice(0, OPEN.size).some(({ value }) => Boolean(value?.next_cursor));
    for (const order of [...found, ...this.#came.values()]) this.#merge(this.#orders, order);
    this.#drop();
    this.changed();
    if (failed) throw failed.reason;
  }

  /** Take an order as it is now. */
  take(order) {
    this.#merge(this.#came, order);
    this.#merge(this.#orders, order);
    this.#drop();
    this.changed();
  }

  forget() {
    this.#loads += 1;
    this.#orders = new Map();
    this.#hasMore = false;
    this.changed();
  }

  /** Whether there are open orders besides those that are known here. */
  hasMore() {
    return this.#hasMore;
  }

  open() {
    return [...this.#orders.values()].filter(isOpen).sort(byAge);
  }

  over() {
    return [...this.#orders.values()].filter((order) => !isOpen(order)).sort(byChange);
  }

  has(orderId) {
    return this.#orders.has(orderId);
  }

  #merge(orders, order) {
    const known = orders.get(order.order_id);
    if (!known || known.sequence <= order.sequence) orders.set(order.order_id, order);
  }

  #drop() {
    for (const order of this.over().slice(OVER_MAX)) this.#orders.delete(order.order_id);
    if (this.#came.size > OPEN_MAX + OVER_MAX) this.#came.delete(this.#came.keys().next().value);
  }
}

function byAge(one, other) {
  return one.order_id < other.order_id ? 1 : -1;
}

function byChange(one, other) {
  return other.sequence - one.sequence;
}
