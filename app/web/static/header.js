// What the top of the page says of the instrument: last price, the day's change and range.

import { painter } from "./painting.js";
import { byId, direction, grouped, roughly, setText, signed } from "./text.js";

export class Header {
  #instrument = null;
  #ticker = null;
  #last = null;
  #sequence = 0; // of the trade that the last price is from
  #moved = "";
  #draw = painter(() => this.#show());

  show(instrument) {
    this.#instrument = instrument;
    this.#ticker = this.#last = null;
    this.#moved = "";
    this.#sequence = 0;
    setText(byId("market-symbol"), instrument.symbol);
    this.status(instrument.status);
    this.#draw();
  }

  status(status) {
    const text = { cancel_only: "Cancel only", halted: "Halted" }[status] ?? "";
    setText(byId("market-status"), text);
    byId("market-status").hidden = text === "";
  }

  ticker(ticker) {
    this.#ticker = ticker;
    if (ticker.last && ticker.sequence >= this.#sequence) this.#moveTo(ticker.last);
    this.#draw();
  }

  trade(trade) {
    this.#sequence = trade.sequence;
    this.#moveTo(trade.price);
    this.#draw();
  }

  #moveTo(price) {
    const units = this.#instrument.price.units(price);
    const last = this.#last === null ? null : this.#instrument.price.units(this.#last);
    if (last !== null && units !== last) this.#moved = units > last ? "up" : "down";
    this.#last = price;
  }

  #show() {
    const last = this.#last ? grouped(this.#last) : "–";
    for (const id of ["last", "ladder-last"]) {
      setText(byId(id), last);
      byId(id).className = `last ${this.#moved}`;
    }
    const change = this.#ticker?.change_24h_percent ?? null;
    setText(byId("change"), change === null ? "" : `${signed(change)} %`);
    byId("change").className = `change ${direction(change)}`;
    document.title = this.#last ? `${last} ${this.#instrument.symbol} · Crossbook` : "Crossbook";
    this.#showDay(this.#ticker ?? {});
  }

  #showDay(ticker) {
    const { base, quote } = this.#instrument;
    const price = (text) => (text ? grouped(text) : "–");
    setText(byId("day-high"), price(ticker.high_24h));
    setText(byId("day-low"), price(ticker.low_24h));
    setText(byId("day-vwap"), price(ticker.vwap_24h));
    const sum = (text, unit) => (text ? `${roughly(text)} ${unit}` : "–");
    setText(byId("day-volume"), sum(ticker.volume_24h, base));
    setText(byId("day-turnover"), sum(ticker.quote_volume_24h, quote));
  }
}
