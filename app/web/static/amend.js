// The dialog that changes the price or the quantity of an open order.

import { notify } from "./notices.js";
import { fieldComplaints, headline } from "./refusals.js";
import { call, orderPath } from "./rest.js";
import { byId, setText, trimmed, words } from "./text.js";

const FIELDS = { price: "price", stop_price: "price", quantity: "quantity" };

export class AmendDialog {
  #dialog = byId("amend");
  #form = byId("amend-form");
  #alert = byId("amend-alert");
  #order = null;
  #instrument = null;
  #openings = 0;

  /** `amended` is called with the answer. */
  constructor(amended) {
    this.amended = amended;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    byId("amend-close").addEventListener("click", () => this.#dialog.close());
  }

  open(order, instrument) {
    this.#openings += 1;
    this.#order = order;
    this.#instrument = instrument;
    this.#form.ariaBusy = "false";
    const what = `${words(order.side)} ${trimmed(order.remaining_quantity)} ${instrument.base} left`;
    setText(byId("amend-what"), `${what}, ${trimmed(order.filled_quantity)} filled`);
    for (const name of Object.keys(FIELDS)) {
      const row = this.#form.querySelector(`[data-field="${name}"]`);
      row.hidden = order[name] === null || (name === "stop_price" && order.status !== "pending");
      this.#form.elements[name].value = order[name] === null ? "" : trimmed(order[name]);
    }
    this.#complain(new Map());
    this.#alert.hidden = true;
    this.#dialog.showModal();
    this.#form.elements.quantity.select();
  }

  #changes() {
    const changes = {};
    for (const [name, scale] of Object.entries(FIELDS)) {
      const typed = this.#form.elements[name].value.trim();
      if (this.#form.querySelector(`[data-field="${name}"]`).hidden) continue;
      const isSame =
        this.#instrument[scale].units(typed) === this.#instrument[scale].units(this.#order[name]);
      if (!isSame) changes[name] = typed;
    }
    return changes;
  }

  async #submit() {
    if (this.#form.ariaBusy === "true") return;
    const changes = this.#changes();
    const found = new Map();
    for (const [name, typed] of Object.entries(changes)) {
      const complaint = this.#instrument[FIELDS[name]].complaint(typed);
      if (complaint) found.set(name, complaint);
    }
    this.#complain(found);
    if (found.size > 0) return;
    if (Object.keys(changes).length === 0) return this.#dialog.close();
    await this.#send(changes);
  }

  async #send(changes) {
    // Meanwhile it may be closed, and opened for another order: then that is left alone.
    const opening = this.#openings;
    const isStillOpen = () => opening === this.#openings && this.#dialog.open;
    this.#form.ariaBusy = "true";
    try {
      const answer = await call("PATCH", orderPath(this.#order.order_id), changes);
      if (isStillOpen()) this.#dialog.close();
      this.amended(answer);
    } catch (error) {
      if (isStillOpen()) this.#refuse(error);
      else notify(headline(error), "bad");
    } finally {
      if (opening === this.#openings) this.#form.ariaBusy = "false";
    }
  }

  #refuse(error) {
    this.#complain(fieldComplaints(error));
    this.#alert.textContent = headline(error);
    this.#alert.hidden = false;
  }

  #complain(found) {
    for (const name of Object.keys(FIELDS)) {
      setText(this.#form.querySelector(`[data-complaint="${name}"]`), found.get(name) ?? "");
      this.#form.elements[name].setAttribute("aria-invalid", String(found.has(name)));
    }
  }
}
