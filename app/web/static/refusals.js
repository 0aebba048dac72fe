// What the server's refusals mean to a trader, in words.

import { NoAnswer, Refused } from "./rest.js";
import { words } from "./text.js";

const BY_CODE = {
  amend_below_filled: "More than that is filled already.",
  backlog_full: "The venue is behind with its records and takes no orders for the moment.",
  book_behind: "The venue is repairing its order book. Nothing was placed.",
  book_changed: "The order book was just rebuilt. Try again.",
  book_missing: "The venue has lost this order book and is not taking orders in it.",
  cancel_only: "This market takes cancels only for now.",
  database_unavailable: "The venue's records cannot be read right now. Try again shortly.",
  duplicate_client_order_id: "You have an open order with this id already.",
  engine_unavailable: "The order book does not answer right now. Nothing was done; try again.",
  expires_in_past: "The expiry time has passed already.",
  idempotency_key_reused: "This order differs from the one sent before it. Try again.",
  instrument_halted: "Trading in this market is halted. Nothing was placed.",
  instrument_not_found: "There is no such market.",
  kill_switch: "Your kill switch is on: only cancels are accepted.",
  not_amendable: "An order of this type has no such price to change.",
  order_not_found: "There is no such order.",
  order_not_open: "This order is over already: it was filled, cancelled or has expired.",
  post_only_would_cross: "Not placed: it is post-only, and at this price it would trade at once.",
  price_band: "Not placed: the price is too far from the last trade.",
  risk_limit: "Not placed: above this market's limit on quantity, value or open orders.",
  stop_would_trigger: "Not placed: the last trade has reached this stop price already.",
  too_late: "The order book was too slow to answer. Nothing was done; try again.",
};

const REASONS = {
  cancel_after: "its timer ran out",
  cancelled_by_client: "as you asked",
  cancelled_on_disconnect: "its connection ended",
  expired: "its time was over",
  fill_limit: "one order may not fill against more",
  fok_unfilled: "it could not be filled completely at once",
  ioc_remainder: "nothing more to trade with at this price",
  kill_switch: "the kill switch was thrown",
  level_quantity_overflow: "no more fits at this price",
  no_liquidity: "nothing to trade with",
  price_band: "the rest would trade too far from the last price",
  self_trade_prevented: "it met an order of your own",
};

export function statusInWords(status) {
  return status === "pending" ? "Waits for its stop" : words(status);
}

export function reasonInWords(reason) {
  return reason ? (REASONS[reason] ?? words(reason).toLowerCase()) : "";
}

/** One sentence for whatever went wrong. */
export function headline(error) {
  if (error instanceof NoAnswer) {
    if (error.isQuestion) return "The venue does not answer.";
    return "No answer came, so it is not known what happened. Send it again: it cannot happen twice.";
  }
  if (!(error instanceof Refused)) throw error;
  const { problem } = error;
  if (problem.code === "validation_failed") return "Some fields need another value.";
  return BY_CODE[problem.code] ?? `${problem.detail ?? problem.title}.`;
}

/** What is wrong with single fields: name of the field -> sentence. */
export function fieldComplaints(error) {
  const errors = error instanceof Refused ? (error.problem.errors ?? []) : [];
  return new Map(errors.map((each) => [each.field, words(each.detail)]));
}
