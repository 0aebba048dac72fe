// Who trades what: the instrument is in the address, the client and choices are kept by the browser.

const CLIENT_KEY = "crossbook.client";
const SYMBOL_KEY = "crossbook.instrument";
/** Shown to whoever comes for the first time, where it is listed. */
const USUAL_SYMBOL = "BTC-USD";
const CLIENT = /^[!-{}~](?:[ -{}~]{0,62}[!-{}~])?$/;
const SYMBOL = /^[A-Z0-9]{2,12}-[A-Z0-9]{2,12}$/;
const NAME_DIGITS = 4;

/** What the browser keeps, where it lets us. */
export const kept = {
  get(key) {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(key, value);
    } catch {
      // Kept for this visit only.
    }
  },
};

function newName() {
  const number = crypto.getRandomValues(new Uint16Array(1))[0];
  return `trader-${number.toString(16).padStart(NAME_DIGITS, "0")}`;
}

export class Session {
  constructor() {
    const known = kept.get(CLIENT_KEY);
    this.client = known && CLIENT.test(known) ? known : newName();
    kept.set(CLIENT_KEY, this.client);
    this.symbol = null;
  }

  /** Trade under another name; false where it cannot be one. */
  rename(client) {
    if (!CLIENT.test(client)) return false;
    this.client = client;
    kept.set(CLIENT_KEY, client);
    return true;
  }

  /** Where to begin: what the address names, what was traded last, or the usual. */
  firstOf(symbols) {
    const wishes = [this.addressed(), kept.get(SYMBOL_KEY), USUAL_SYMBOL];
    return wishes.find((symbol) => symbols.includes(symbol)) ?? symbols[0];
  }

  /** The instrument that the address names, if any. */
  addressed() {
    try {
      const named = decodeURIComponent(location.hash.slice(1));
      return SYMBOL.test(named) ? named : null;
    } catch {
      return null; // anybody can write an address that is no text
    }
  }

  turnTo(symbol) {
    this.symbol = symbol;
    kept.set(SYMBOL_KEY, symbol);
    if (this.addressed() !== symbol) history.pushState(null, "", `#${symbol}`);
  }
}
