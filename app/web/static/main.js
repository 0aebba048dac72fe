// Puts the page together: who hears of what.

import { AmendDialog } from "./amend.js";
import { Book } from "./book.js";
import { Chart } from "./chart.js";
import { ConnectionState } from "./connection.js";
import { Feed } from "./feed.js";
import { Fills } from "./fills.js";
import { Header } from "./header.js";
import { Instrument } from "./instrument.js";
import { startKeys } from "./keys.js";
import { Ladder } from "./ladder.js";
import { showView, startTabs, startViews } from "./layout.js";
import { Markets } from "./markets.js";
import { notify } from "./notices.js";
import { OrdersTable } from "./orders_table.js";
import { isOpen, OPEN_MAX, OwnOrders } from "./own_orders.js";
import { painter } from "./painting.js";
import { Positions } from "./positions.js";
import { headline, reasonInWords, statusInWords } from "./refusals.js";
import { call, get, orderPath } from "./rest.js";
import { Session } from "./session.js";
import { Tape } from "./tape.js";
import { startTheme } from "./theme.js";
import { Ticket } from "./ticket.js";
import { byId, grouped, setText, trimmed, words } from "./text.js";

const TRADES = 500;
const RETRY_MS = 2_000;
const STATUS_MS = 10_000;
const OPEN_COLUMNS = ["time", "side", "type", "price", "quantity", "filled", "status"];
const OVER_COLUMNS = ["ended", "side", "type", "price", "average", "quantity", "filled", "status"];

const session = new Session();
const scheme = location.protocol === "https:" ? "wss" : "ws";
const feed = new Feed(`${scheme}://${location.host}/ws`);
let instrument = null;
let book = null;
// Answers come in any order: only that to the newest question of its kind counts.
let turns = 0;
let catchUps = 0;

const header = new Header();
const tape = new Tape();
const chart = new Chart();
const ticket = new Ticket(session, acknowledged);
const ladder = new Ladder((level) => {
  if (matchMedia("(max-width: 760px)").matches) showView("trade");
  ticket.fill(level);
});
const orders = new OwnOrders(painter(drawOrders));
const fills = new Fills((id) => orders.has(id));
const positions = new Positions(session);
const amendDialog = new AmendDialog(({ order, trades }) => {
  take(order);
  notify(`Amended. ${outcome(order, trades)}`, "good");
});
const openTable = new OrdersTable("open-table", OPEN_COLUMNS, {
  amend: (order) => amendDialog.open(order, instrument),
  cancel,
});
const overTable = new OrdersTable("over-table", OVER_COLUMNS);
const markets = new Markets((symbol) => turnTo(symbol));
const refreshEstimate = painter(() => ticket.refresh());

// Market data

feed.on("book_snapshot", (message) => {
  book.load(message);
  bookChanged();
});
feed.on("book_delta", (message) => {
  // A delta that does not follow means that one is missing: begin again.
  if (book.sequence === null) return;
  if (!book.apply(message)) {
    book.sequence = null;
    feed.resynchronise();
  } else bookChanged();
});
feed.on("heartbeat", ({ sequence }) => {
  if (book.sequence !== null && sequence > book.sequence) feed.resynchronise();
});
feed.on("trade", (trade) => {
  for (const each of [header, tape, chart, fills]) each.trade(trade);
});
feed.on("ticker", (ticker) => header.ticker(ticker));
feed.on("order", (message) => take(message.order));
feed.on("gap", () => feed.resynchronise());
feed.on("refused", ({ detail }) => notify(`No market data: ${detail}`, "bad"));
feed.on("subscribed", ({ channels }) => {
  if (channels.includes("trades")) catchUp();
});

function bookChanged() {
  document.body.dataset.sequence = book.sequence;
  ladder.draw();
  refreshEstimate();
}

/** What happened before the subscription, or while there was none. */
async function catchUp() {
  if (!instrument) return;
  const catchUpNumber = ++catchUps;
  const { symbol } = instrument;
  chart.load();
  tape.clear();
  const [loaded, traded] = await Promise.allSettled([
    orders.load(symbol, session.client),
    get("/trades", { instrument: symbol, limit: TRADES }),
  ]);
  if (catchUpNumber !== catchUps) return;
  const trades = traded.value?.trades ?? [];
  tape.load(trades);
  fills.load(trades);
  const failures = [loaded, traded].filter(({ reason }) => reason);
  for (const text of new Set(failures.map(({ reason }) => headline(reason)))) notify(text, "bad");
}

// Own orders

function take(order) {
  if (order.client_id !== session.client || order.instrument !== session.symbol) return;
  orders.take(order);
  fills.order(order);
}

function drawOrders() {
  const open = orders.open();
  openTable.show(open.slice(0, OPEN_MAX));
  overTable.show(orders.over());
  setText(byId("open-count"), `${open.length}${orders.hasMore() ? "+" : ""}`);
  const hasNone = open.length === 0 && !orders.hasMore();
  byId("open-none").hidden = !hasNone;
  byId("cancel-all").disabled = hasNone;
  if (!instrument) return;
  ladder.mark(
    open
      .filter((order) => order.price && order.status !== "pending")
      .map((order) => instrument.price.units(order.price)),
  );
}

function acknowledged({ order, trades }, isReplayed) {
  take(order);
  const again = isReplayed ? "Your first attempt had arrived; nothing was placed again. " : "";
  notify(again + outcome(order, trades), isOpen(order) || trades.length > 0 ? "good" : "plain");
}

/** What became of an order, in a sentence. */
function outcome(order, trades) {
  const what = `${words(order.side)} ${grouped(trimmed(order.quantity))}`;
  const price = order.price ? ` at ${grouped(order.price)}` : "";
  const stop = order.stop_price ? `, stop ${grouped(order.stop_price)}` : "";
  const status = statusInWords(order.status).toLowerCase();
  const filled = grouped(trimmed(order.filled_quantity));
  const fill = trades.length > 0 ? `, ${filled} filled at ${grouped(order.average_price)}` : "";
  const reason = reasonInWords(order.reason);
  return `${what}${price}${stop}: ${status}${fill}${reason ? ` (${reason})` : ""}`;
}

async function cancel(order, button) {
  if (button.ariaDisabled === "true") return;
  button.ariaDisabled = "true"; // not disabled: it would lose the focus
  try {
    const answer = await call("DELETE", orderPath(order.order_id));
    take(answer.order);
    notify(outcome(answer.order, []), "plain");
  } catch (error) {
    notify(headline(error), "bad");
  } finally {
    button.ariaDisabled = "false";
  }
}

async function cancelAll() {
  const query = new URLSearchParams({ client_id: session.client, instrument: instrument.symbol });
  try {
    const { cancelled } = await call("DELETE", `/orders?${query}`);
    notify(`${cancelled.length} cancelled`, "plain");
    if (orders.hasMore()) await orders.load(instrument.symbol, session.client);
  } catch (error) {
    notify(headline(error), "bad");
  }
}

// What is traded, and by whom

async function turnTo(symbol) {
  const turn = ++turns;
  let view;
  try {
    view = await get(`/instruments/${encodeURIComponent(symbol)}`);
  } catch (error) {
    if (turn === turns) notify(headline(error), "bad");
    return;
  }
  if (turn !== turns) return;
  catchUps += 1; // what is asked for is of the instrument before
  session.turnTo(symbol);
  instrument = new Instrument(view);
  book = new Book(instrument);
  orders.forget();
  fills.clear();
  tape.clear();
  header.show(instrument);
  chart.show(instrument);
  ladder.show(book);
  ticket.show(instrument, book);
  const followed = book;
  feed.follow(symbol, session.client, () => followed.sequence);
}

/** Whether the market is open may change at any time. */
async function refreshStatus() {
  if (document.hidden || !instrument) return;
  try {
    const { symbol, status } = await get(`/instruments/${instrument.symbol}`);
    if (symbol === instrument.symbol) header.status(status);
  } catch {
    // The banner says what is wrong.
  }
}

function rename() {
  const field = byId("client");
  if (!session.rename(field.value.trim())) {
    field.setAttribute("aria-invalid", "true");
    notify("A name has 1 to 64 plain characters, without |", "bad");
    return;
  }
  field.setAttribute("aria-invalid", "false");
  orders.forget();
  fills.clear();
  feed.trade(session.client);
  positions.refresh();
  catchUp();
}

/** The first instrument: the one that the address names, else the first there is. */
async function begin() {
  if (instrument) return;
  let symbols;
  try {
    symbols = (await get("/instruments")).instruments.map(({ symbol }) => symbol);
  } catch (error) {
    notify(headline(error), "bad");
    symbols = [];
  }
  if (symbols.length === 0) {
    setTimeout(begin, RETRY_MS);
    return;
  }
  markets.list(symbols);
  await turnTo(session.firstOf(symbols));
  if (instrument) return;
  notify("The market could not be opened. It is tried again.", "bad");
  setTimeout(begin, RETRY_MS);
}

new ConnectionState(feed, () => {
  feed.resynchronise();
  notify("The venue takes orders again. Everything was read anew.", "good");
});
startTheme(() => chart.recolour());
startTabs((tab) => tab === "tab-positions" && positions.refresh());
startViews();
startKeys({
  b: () => ticket.chooseSide("buy"),
  s: () => ticket.chooseSide("sell"),
  m: () => markets.open(),
  o: () => byId("tab-open").click(),
});
byId("client").value = session.client;
byId("client").addEventListener("change", rename);
byId("cancel-all").addEventListener("click", cancelAll);
addEventListener("popstate", () => {
  const addressed = session.addressed();
  if (addressed === session.symbol)
    turns += 1; // another one, still on its way, is not wanted
  else if (addressed) turnTo(addressed);
});
setInterval(refreshStatus, STATUS_MS);
chart.start();
begin();
