// What a subscriber knows: the book that snapshot and deltas make, and which trades there were.
// Each message is judged: 'next', or 'gap', or 'repeat'.

function setLevels(levels, changes) {
  for (const [price, quantity] of changes) {
    if (Number(quantity) === 0) {
      levels.delete(price);
    } else {
      levels.set(price, quantity);
    }
  }
}

// `price quantity` of the best `count` levels, as one text.
function best(levels, count, direction) {
  return [...levels.entries()]
    .sort(([a], [b]) => direction * (Number(a) - Number(b)))
    .slice(0, count)
    .map((level) => level.join(' '))
    .join('\n');
}

function asPairs(levels) {
  return levels.map(({ price, quantity }) => `${price} ${quantity}`).join('\n');
}

export class Book {
  constructor() {
    this.sequence = undefined; // of the last message
    this.bids = new Map();
    this.asks = new Map();
  }

  // The first message of a subscription; a second one means that the chain was broken.
  start({ sequence, bids, asks }) {
    const verdict = this.sequence === undefined ? 'next' : 'gap';
    this.sequence = sequence;
    this.bids = new Map(bids);
    this.asks = new Map(asks);
    return verdict;
  }

  apply({ sequence, previous_sequence: previous, bids, asks }) {
    const isNext = previous === this.sequence && sequence > previous;
    const isRepeat = this.sequence !== undefined && sequence <= this.sequence;
    this.sequence = sequence;
    setLevels(this.bids, bids);
    setLevels(this.asks, asks);
    if (isNext) {
      return 'next';
    }
    return isRepeat ? 'repeat' : 'gap';
  }

  // Whether this is the book that GET /orderbook told, as far as `count` levels a side.
  equals(told, count) {
    return best(this.bids, count, -1) === asPairs(told.bids) &&
      best(this.asks, count, 1) === asPairs(told.asks);
  }
}

export class Trades {
  constructor() {
    this.sequence = 0;
    this.ids = new Set(); // of the trades of that sequence
  }

  take({ sequence, trade_id: id }) {
    if (sequence > this.sequence) {
      this.sequence = sequence;
      this.ids = new Set([id]);
      return 'next';
    }
    const isRepeat = sequence < this.sequence || this.ids.has(id);
    this.ids.add(id);
    return isRepeat ? 'repeat' : 'next';
  }
}
