// The order form: shows the fields that apply, says what is wrong beside them, sends the order.

import { toText } from "./decimal.js";
import { TIMES_IN_FORCE, complaints, fieldsOf, orderBody, timesInForce } from "./order_rules.js";
import { fieldComplaints, headline } from "./refusals.js";
import { exchange, newIdempotencyKey } from "./rest.js";
import { byId, element, grouped, setText, trimmed } from "./text.js";

const STEPPED = { price: "price", stop_price: "price", quantity: "quantity" };
const LARGE_STEP = 10;
/** Orders without a definite answer whose keys are kept; the oldest is given up first. */
const PENDING_MAX = 100;
const SERVER_ERROR = 500;

/** Whether a refusal says that the order is not there. That of a server in trouble may be right about
 * this attempt, but says nothing of one before it. */
function isDefinite(error) {
  return error.problem?.status < SERVER_ERROR;
}

export class Ticket {
  #form = byId("ticket");
  #alert = byId("ticket-alert");
  #instrument = null;
  #book = null;
  #wantedTime = ""; // in force; a type that cannot have it does not change the wish
  #pending = new Map(); // text -> key of orders of which it is not known what became of them

  /** `session` tells {symbol, client}; `placed` is called with the answer of an accepted order, and
   * whether it was placed by an earlier attempt. */
  constructor(session, placed) {
    this.session = session;
    this.placed = placed;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#form.addEventListener("input", (event) => this.#edited(event.target.name));
    this.#form.addEventListener("keydown", (event) => this.#step(event));
    this.#offerTimes();
    this.#arrange();
  }

  /** Trade another instrument: numbers of the one before mean nothing in it. */
  show(instrument, book) {
    const isAnother = this.#instrument?.symbol !== instrument.symbol;
    this.#instrument = instrument;
    this.#book = book;
    for (const unit of this.#form.querySelectorAll("[data-unit]")) {
      setText(unit, instrument[unit.dataset.unit]);
    }
    if (isAnother) {
      for (const name of ["price", "stop_price", "quantity", "display_quantity"]) {
        this.#field(name).value = "";
      }
      this.#complain(new Map());
    }
    this.#arrange();
  }

  /** Take over a level of the ladder: its price, and with `isWhole` all there is up to it. */
  fill({ price, cumulative, isWhole }) {
    if (this.#entered().type === "market") this.#choose("type", "limit");
    const isStop = this.#entered().type === "stop";
    this.#field(isStop ? "stop_price" : "price").value = this.#instrument.price.text(price);
    if (isWhole) {
      this.#field("quantity").value = trimmed(this.#instrument.quantity.text(cumulative));
    }
    this.#edited("price");
    this.#field("quantity").focus({ preventScroll: true });
  }

  chooseSide(side) {
    this.#choose("side", side);
    this.#field("quantity").focus();
  }

  /** The estimate follows the book. */
  refresh() {
    this.#estimate();
  }

  // The form

  #field(name) {
    return this.#form.elements[name];
  }

  #choose(name, value) {
    this.#field(name).value = value;
    this.#edited(name);
  }

  #entered() {
    const entered = Object.fromEntries(new FormData(this.#form));
    for (const name of ["price", "stop_price", "quantity", "display_quantity", "expires_at"]) {
      entered[name] ??= "";
    }
    return { ...entered, post_only: this.#field("post_only").checked };
  }

  #fields(entered) {
    return fieldsOf(entered.type, entered.time_in_force);
  }

  #edited(name) {
    if (name === "type") this.#offerTimes();
    if (name === "time_in_force") this.#wantedTime = this.#field(name).value;
    if (["type", "time_in_force", "side"].includes(name)) this.#arrange();
    const complaint = this.#form.querySelector(`[data-complaint="${name}"]`);
    if (complaint) this.#complainOf(name, "");
    this.#alert.hidden = true;
    this.#estimate();
  }

  #offerTimes() {
    const select = this.#field("time_in_force");
    const times = timesInForce(this.#entered().type);
    const chosen = times.includes(this.#wantedTime) ? this.#wantedTime : times[0];
    const options = times.map((time) =>
      element("option", { value: time, textContent: TIMES_IN_FORCE[time] }),
    );
    select.replaceChildren(...options);
    select.value = chosen;
  }

  /** Show the fields that apply, and say on the button what it does. */
  #arrange() {
    const entered = this.#entered();
    const fields = this.#fields(entered);
    for (const row of this.#form.querySelectorAll("[data-field]")) {
      row.hidden = !fields.has(row.dataset.field);
    }
    this.#form.dataset.side = entered.side;
    const verb = entered.side === "buy" ? "Buy" : "Sell";
    setText(byId("submit"), `${verb} ${this.#instrument?.base ?? ""}`.trim());
    this.#estimate();
  }

  /** Arrow keys change a number by a step of the instrument. */
  #step(event) {
    const steps = { ArrowUp: 1, ArrowDown: -1 };
    const scale = STEPPED[event.target.name];
    if (!scale || !(event.key in steps) || !this.#instrument) return;
    event.preventDefault();
    const count = steps[event.key] * (event.shiftKey ? LARGE_STEP : 1);
    event.target.value = this.#instrument[scale].moved(event.target.value, count);
    this.#edited(event.target.name);
  }

  // What it would cost

  #estimate() {
    setText(byId("estimate"), this.#instrument ? this.#estimateText() : "");
  }

  #estimateText() {
    const { price, quantity, quote } = this.#instrument;
    const entered = this.#entered();
    if (quantity.complaint(entered.quantity)) return "–";
    const lots = quantity.units(entered.quantity.trim());
    if (entered.type === "market") return this.#sweepText(entered.side, lots);
    const typed = entered[entered.type === "stop" ? "stop_price" : "price"];
    if (price.complaint(typed)) return "–";
    const about = entered.type === "stop" ? "about " : "";
    const ticks = price.units(typed.trim());
    return `${about}${grouped(this.#instrument.notionalText(ticks, lots))} ${quote}`;
  }

  #sweepText(side, lots) {
    const { quote, quantity } = this.#instrument;
    const { covered, notional } = this.#book.sweep(
      side === "buy" ? this.#book.asks : this.#book.bids,
      lots,
    );
    if (covered < lots) {
      return `only ${grouped(trimmed(toText(covered, quantity.decimals)))} on offer`;
    }
    return `about ${grouped(this.#instrument.notionalText(notional, 1n))} ${quote}`;
  }

  // Sending

  async #submit() {
    if (this.#form.ariaBusy === "true") return;
    if (!this.#instrument)
      return this.#refuse("No market is open yet. Nothing was sent.", new Map());
    const entered = this.#entered();
    const fields = this.#fields(entered);
    const found = complaints(entered, fields, this.#instrument);
    this.#complain(found);
    if (found.size > 0) return this.#refuse("Some fields need another value.", found);
    const text = JSON.stringify(orderBody(entered, fields, this.session));
    await this.#send(text);
  }

  async #send(text) {
    const key = this.#key(text);
    this.#busy(true);
    try {
      const headers = { "Idempotency-Key": key };
      const answer = await exchange("POST", "/orders", JSON.parse(text), headers);
      this.#pending.delete(text);
      this.#alert.hidden = true;
      this.placed(answer.document, answer.isReplayed);
    } catch (error) {
      if (isDefinite(error)) this.#pending.delete(text);
      const found = fieldComplaints(error);
      this.#complain(found);
      this.#refuse(headline(error), found);
    } finally {
      this.#busy(false);
    }
  }

  /** The same order again has the same key until a definite answer, so it is placed once at most,
   * whatever else was placed in between. */
  #key(text) {
    const key = this.#pending.get(text) ?? newIdempotencyKey();
    this.#pending.set(text, key);
    if (this.#pending.size > PENDING_MAX) this.#pending.delete(this.#pending.keys().next().value);
    return key;
  }

  #busy(isBusy) {
    byId("submit").ariaDisabled = String(isBusy); // not disabled: it would lose the focus
    this.#form.setAttribute("aria-busy", String(isBusy));
  }

  /** Say why nothing was placed; what concerns no field on the form is said here, too. */
  #refuse(sentence, found) {
    const others = [...found].filter(([name]) => !this.#isShown(name));
    const more = others.map(([name, complaint]) => ` ${name}: ${complaint}.`).join("");
    this.#alert.textContent = sentence + more;
    this.#alert.hidden = false;
    const first = [...found.keys()].find((name) => this.#isShown(name));
    if (first) this.#field(first).focus();
  }

  #isShown(name) {
    return this.#form.querySelector(`[data-field="${name}"]:not([hidden])`) !== null;
  }

  #complain(found) {
    for (const { dataset } of this.#form.querySelectorAll("[data-complaint]")) {
      this.#complainOf(dataset.complaint, found.get(dataset.complaint) ?? "");
    }
    const more = this.#form.querySelector("details");
    if (more.querySelector('[aria-invalid="true"]')) more.open = true;
  }

  #complainOf(name, complaint) {
    setText(this.#form.querySelector(`[data-complaint="${name}"]`), complaint);
    this.#field(name).setAttribute("aria-invalid", String(complaint !== ""));
  }
}
