// One instrument: its steps and limits, and what is wrong with a number that somebody typed.

import { decimalsOf, rescale, toText, toUnits } from "./decimal.js";
import { grouped, trimmed } from "./text.js";

/** Of prices or of quantities: exact units, and the words for what is no multiple of the step. */
class Scale {
  constructor(step, most) {
    this.decimals = decimalsOf(step);
    this.stepText = step;
    this.step = toUnits(step, this.decimals);
    this.most = toUnits(most, this.decimals);
  }

  units(text) {
    return toUnits(text, this.decimals);
  }

  text(units) {
    return toText(units, this.decimals);
  }

  /** Why a typed number cannot be used; empty where it can. */
  complaint(typed) {
    const text = typed.trim();
    if (text === "") return "Enter a number";
    if (text.includes(",")) return "Use a point for decimals, and no commas";
    const exact = toUnits(text, 18);
    if (exact === null) return "Enter a plain number, such as 0.25";
    if (exact <= 0n) return "Must be greater than zero";
    const units = this.units(text);
    if (units === null || units % this.step !== 0n) return `Must be a multiple of ${this.stepText}`;
    if (units > this.most) return `Must not exceed ${grouped(trimmed(this.text(this.most)))}`;
    return "";
  }

  /** The typed number moved by `count` steps, onto the grid, never below one step. */
  moved(typed, count) {
    const units = this.units(typed.trim()) ?? 0n;
    const moved = (units / this.step + BigInt(count)) * this.step;
    return this.text(moved < this.step ? this.step : moved);
  }
}

export class Instrument {
  constructor(view) {
    this.symbol = view.symbol;
    this.base = view.base;
    this.quote = view.quote;
    this.status = view.status;
    this.price = new Scale(view.tick_size, view.max_price);
    this.quantity = new Scale(view.lot_size, view.max_quantity);
  }

  /** price x quantity in the quote currency, rounded to the price's decimals, at least two. */
  notionalText(priceUnits, quantityUnits) {
    const exact = this.price.decimals + this.quantity.decimals;
    const shown = Math.max(2, this.price.decimals);
    return toText(rescale(priceUnits * quantityUnits, exact, shown), shown);
  }
}
