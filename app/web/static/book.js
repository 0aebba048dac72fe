// A copy of one order book, kept from a snapshot and the deltas after it. Pure state: knows neither
// the connection nor the screen.

class Side {
  /** `isAsk`: best is the lowest price. */
  constructor(isAsk) {
    this.isAsk = isAsk;
    this.levels = []; // best first, {price, quantity} in units
  }

  load(pairs, scales) {
    this.levels = [];
    for (const pair of pairs) this.set(pair, scales);
  }

  /** Set the total of one price; zero removes it. */
  set([price, quantity], scales) {
    const level = { price: scales.price.units(price), quantity: scales.quantity.units(quantity) };
    const at = this.#place(level.price);
    const isThere = this.levels[at]?.price === level.price;
    if (level.quantity === 0n) {
      if (isThere) this.levels.splice(at, 1);
    } else {
      this.levels.splice(at, isThere ? 1 : 0, level);
    }
  }

  /** Where a price is, or would be. */
  #place(price) {
    let low = 0;
    let high = this.levels.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const other = this.levels[middle].price;
      if (this.isAsk ? other < price : other > price) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Up to `count` rows whose prices are multiples of `step`: bids rounded down, asks up. */
  rows(step, count) {
    const rows = [];
    let cumulative = 0n;
    for (const level of this.levels) {
      const rest = level.price % step;
      const price = rest === 0n ? level.price : level.price - rest + (this.isAsk ? step : 0n);
      let row = rows.at(-1);
      if (row?.price !== price) {
        if (rows.length === count) break;
        row = { price, quantity: 0n, cumulative: 0n };
        rows.push(row);
      }
      cumulative += level.quantity;
      row.quantity += level.quantity;
      row.cumulative = cumulative;
    }
    return rows;
  }
}

export class Book {
  constructor(instrument) {
    this.instrument = instrument;
    this.bids = new Side(false);
    this.asks = new Side(true);
    this.sequence = null; // of the last message; null before the first snapshot
  }

  load(snapshot) {
    this.bids.load(snapshot.bids, this.instrument);
    this.asks.load(snapshot.asks, this.instrument);
    this.sequence = snapshot.sequence;
  }

  /** Apply a delta; false where it does not follow what is here, and nothing was changed. */
  apply(delta) {
    if (delta.previous_sequence !== this.sequence) return false;
    for (const pair of delta.bids) this.bids.set(pair, this.instrument);
    for (const pair of delta.asks) this.asks.set(pair, this.instrument);
    this.sequence = delta.sequence;
    return true;
  }

  /** What taking `quantity` from a side would cost now: {covered, notional, worst}, exact units. */
  sweep(side, quantity) {
    let covered = 0n;
    let notional = 0n;
    let worst = null;
    for (const level of side.levels) {
      if (covered === quantity) break;
      const open = quantity - covered;
      const taken = level.quantity < open ? level.quantity : open;
      covered += taken;
      notional += taken * level.price;
      worst = level.price;
    }
    return { covered, notional, worst };
  }
}
