// Which fields an order of a type has, and what is wrong with what was entered. Says the same as
// the server, which decides; here it is said before anything is sent.

const PRICED = new Set(["limit", "stop_limit"]);
const STOPS = new Set(["stop", "stop_limit"]);
const RESTING = new Set(["gtc", "gtd"]);

export const TIMES_IN_FORCE = {
  gtc: "Good till cancelled",
  ioc: "Immediate or cancel",
  fok: "Fill or kill",
  gtd: "Good till date",
};

/** Times in force that a type may have; the first is the usual one. */
export function timesInForce(type) {
  return type === "market" ? ["ioc", "fok"] : ["gtc", "ioc", "fok", "gtd"];
}

/** Names of the fields that apply. */
export function fieldsOf(type, timeInForce) {
  const fields = new Set(["quantity", "time_in_force", "self_trade_prevention"]);
  const mayRest = RESTING.has(timeInForce);
  if (PRICED.has(type)) fields.add("price");
  if (STOPS.has(type)) fields.add("stop_price");
  if (timeInForce === "gtd") fields.add("expires_at");
  if (type === "limit" && mayRest) fields.add("post_only");
  if (PRICED.has(type) && mayRest) fields.add("display_quantity");
  return fields;
}

/** An expiry as the field holds it, in UTC, as the API takes it. */
export function expiryText(local) {
  return local.length === "2030-01-31T12:00".length ? `${local}:00Z` : `${local}Z`;
}

/** What is wrong with an order: name of the field -> sentence. `entered` holds what was typed. */
export function complaints(entered, fields, instrument) {
  const found = new Map();
  const check = (name, scale) => {
    const complaint = fields.has(name) ? scale.complaint(entered[name]) : "";
    if (complaint) found.set(name, complaint);
  };
  check("price", instrument.price);
  check("stop_price", instrument.price);
  check("quantity", instrument.quantity);
  if (fields.has("display_quantity") && entered.display_quantity !== "") {
    check("display_quantity", instrument.quantity);
    if (!found.has("display_quantity") && !found.has("quantity"))
      checkShown(entered, instrument, found);
  }
  if (fields.has("expires_at")) checkExpiry(entered.expires_at, found);
  return found;
}

function checkShown(entered, { quantity }, found) {
  if (quantity.units(entered.display_quantity.trim()) > quantity.units(entered.quantity.trim())) {
    found.set("display_quantity", "Must not exceed the quantity");
  }
}

function checkExpiry(local, found) {
  const time = local === "" ? Number.NaN : Date.parse(expiryText(local));
  if (Number.isNaN(time)) found.set("expires_at", "Enter a date and a time");
  else if (time <= Date.now()) found.set("expires_at", "Must be in the future");
}

/** The order's JSON from what was entered: only fields that apply and were filled. */
export function orderBody(entered, fields, { symbol, client }) {
  const body = { instrument: symbol, client_id: client, side: entered.side, type: entered.type };
  for (const name of ["price", "stop_price", "quantity", "display_quantity"]) {
    if (fields.has(name) && entered[name].trim() !== "") body[name] = entered[name].trim();
  }
  body.time_in_force = entered.time_in_force;
  body.self_trade_prevention = entered.self_trade_prevention;
  if (fields.has("expires_at")) body.expires_at = expiryText(entered.expires_at);
  if (fields.has("post_only") && entered.post_only) body.post_only = true;
  return body;
}
