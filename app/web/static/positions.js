// Positions of the client in all instruments, asked for while somebody looks at them.

import { toText, toUnits } from "./decimal.js";
import { headline } from "./refusals.js";
import { get } from "./rest.js";
import { byId, direction, element, grouped, setText, signed, trimmed } from "./text.js";

const REFRESH_MS = 3_000;
const UNKNOWN = "–";
const COLUMNS = {
  instrument: "Market",
  quantity: "Quantity",
  average: "Average cost",
  last: "Last",
  unrealised: "Unrealised P&L",
  realised: "Realised P&L",
  fees: "Fees",
};

/** What the open quantity would bring at the last price beyond its average cost. */
function unrealisedText(position, last) {
  if (!last || !position.average_cost) return null;
  const places = (text) => text.split(".")[1]?.length ?? 0;
  const [price, quantity] = [
    Math.max(places(last), places(position.average_cost)),
    places(position.quantity),
  ];
  const gain = toUnits(last, price) - toUnits(position.average_cost, price);
  return toText(gain * toUnits(position.quantity, quantity), price + quantity);
}

/** Money to the cent: what is finer is cut off, for the eye only; the title has all of it. */
function money(text) {
  if (text === null || text === undefined) return UNKNOWN;
  const [whole, fraction = ""] = text.split(".");
  return grouped(`${whole}.${fraction.slice(0, 2).padEnd(2, "0")}`);
}

/** The same as a change, where it is known. */
function change(text) {
  const shown = money(text);
  return shown === UNKNOWN ? shown : signed(shown);
}

export class Positions {
  #body = byId("positions-table").tBodies[0];
  #note = byId("positions-note");

  constructor(session) {
    this.session = session;
    setInterval(() => this.#isSeen() && this.refresh(), REFRESH_MS);
  }

  #isSeen() {
    return !document.hidden && !byId("panel-positions").hidden;
  }

  async refresh() {
    const client_id = this.session.client;
    try {
      const [{ positions }, { tickers }] = await Promise.all([
        get("/positions", { client_id }),
        get("/ticker"),
      ]);
      if (client_id === this.session.client) this.#show(positions, tickers);
    } catch (error) {
      setText(this.#note, headline(error));
    }
  }

  #show(positions, tickers) {
    const last = new Map(tickers.map((ticker) => [ticker.instrument, ticker.last]));
    const rows = positions.map((position) => this.#row(position, last.get(position.instrument)));
    this.#body.replaceChildren(...rows);
    setText(this.#note, positions.length > 0 ? "" : "No positions: nothing was traded yet.");
  }

  #row(position, last) {
    const unrealised = unrealisedText(position, last);
    const texts = {
      instrument: position.instrument,
      quantity: grouped(trimmed(position.quantity)),
      average: position.average_cost ? grouped(position.average_cost) : UNKNOWN,
      last: last ? grouped(last) : UNKNOWN,
      unrealised: change(unrealised),
      realised: change(position.realised_pnl),
      fees: money(position.fees),
    };
    const cells = Object.entries(COLUMNS).map(([name, label]) => {
      const cell = element("td", { className: name, textContent: texts[name] });
      cell.dataset.label = label;
      return cell;
    });
    const row = element("tr", {}, ...cells);
    row.querySelector(".unrealised").classList.add(direction(unrealised) || "flat");
    row.querySelector(".realised").classList.add(direction(position.realised_pnl) || "flat");
    row.querySelector(".realised").title = position.realised_pnl ?? "";
    return row;
  }
}
