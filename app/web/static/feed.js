// The WebSocket: keeps one connection, subscribes to one instrument, notices silence, comes back by
// itself. Hands messages to whoever asked for their type; knows nothing of what they mean to them.

const RETRY_MS_MIN = 250;
const RETRY_MS_MAX = 8_000;
const CONNECT_TIMEOUT_MS = 5_000;
const PING_MS = 5_000;
/** The server says something at least once a second. */
const SILENCE_MS = 6_000;
const WATCH_MS = 500;
/** The book's changes come together this often: as often as anybody can look. */
const BOOK_INTERVAL_MS = 100;
const UNAVAILABLE_RETRY_MS = 1_000;

export const PHASES = { connecting: "connecting", live: "live", waiting: "waiting" };

export class Feed {
  #socket = null;
  #handlers = new Map();
  #symbol = null;
  #client = null;
  #needle = "";
  #bookSequence = () => null;
  #failures = 0;
  #startedAt = 0;
  #heardAt = 0;
  #pingAt = 0;
  #pingSentAt = null;
  #retryAt = 0;
  #retryTimer = null;
  #againTimer = null;
  #requests = new Map(); // request id -> channel
  #nextRequest = 1;
  #phase = PHASES.connecting;

  constructor(url) {
    this.url = url;
    setInterval(() => this.#watch(), WATCH_MS);
    addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.#watch());
  }

  /** Call `handler` with each message of a type; "phase" and "latency" are the feed's own. */
  on(type, handler) {
    const handlers = this.#handlers.get(type) ?? [];
    this.#handlers.set(type, [...handlers, handler]);
  }

  /** Follow an instrument, and the orders of one client in it. `bookSequence` tells what a book
   * stands at, so that after a short break only what was missed is sent; null asks for it whole. */
  follow(symbol, client, bookSequence) {
    const previous = this.#symbol;
    this.#symbol = symbol;
    this.trade(client);
    this.#bookSequence = bookSequence;
    if (this.#socket === null) {
      clearTimeout(this.#retryTimer);
      this.#connect();
    } else if (this.#phase === PHASES.live) {
      if (previous !== symbol) this.#unsubscribe(previous);
      this.#subscribe();
    }
  }

  /** Whose orders are wanted. */
  trade(client) {
    this.#client = client;
    this.#needle = `"client_id":${JSON.stringify(client)},`;
  }

  /** Begin everything again, from a new snapshot. */
  resynchronise() {
    if (this.#phase === PHASES.live) this.#subscribe({ isAnew: true });
  }

  /** Do not wait for the next attempt. */
  retryNow() {
    if (this.#phase !== PHASES.waiting) return;
    clearTimeout(this.#retryTimer);
    this.#connect();
  }

  // Connection

  #connect() {
    this.#enter(PHASES.connecting);
    this.#startedAt = performance.now();
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    socket.onopen = () => socket === this.#socket && this.#opened();
    socket.onmessage = (event) => socket === this.#socket && this.#receive(event.data);
    socket.onclose = () => socket === this.#socket && this.#lost();
  }

  #opened() {
    this.#heardAt = performance.now();
    this.#pingAt = 0;
    this.#pingSentAt = null;
    this.#enter(PHASES.live);
    this.#subscribe();
  }

  /** The connection is gone, or of no use: another one after a pause that grows. */
  #lost() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    const pause = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** this.#failures);
    this.#failures += 1;
    const pause_ms = pause * (0.5 + Math.random() / 2);
    this.#retryAt = Date.now() + pause_ms;
    this.#enter(PHASES.waiting);
    this.#retryTimer = setTimeout(() => this.#connect(), pause_ms);
  }

  #watch() {
    const now = performance.now();
    if (this.#phase === PHASES.connecting && this.#socket) {
      if (now - this.#startedAt > CONNECT_TIMEOUT_MS) this.#lost();
    } else if (this.#phase === PHASES.live) {
      if (now - this.#heardAt > SILENCE_MS) this.#lost();
      else if (now >= this.#pingAt) this.#ping(now);
    }
  }

  #ping(now) {
    this.#pingAt = now + PING_MS;
    this.#pingSentAt = now;
    this.#send({ op: "ping" });
  }

  #enter(phase) {
    this.#phase = phase;
    this.#emit("phase", { phase, retryAt: this.#retryAt });
  }

  // Subscriptions

  #subscribe({ isAnew = false } = {}) {
    this.#requests.clear();
    const since = isAnew ? null : this.#bookSequence();
    const book = { interval_ms: BOOK_INTERVAL_MS, ...(since === null ? {} : { since }) };
    this.#request(["trades", "orders"]);
    this.#request(["book"], book);
    this.#request(["ticker"]);
  }

  #request(channels, options = {}) {
    const request_id = this.#nextRequest++;
    this.#requests.set(request_id, { channels, options });
    const instruments = [this.#symbol];
    this.#send({ op: "subscribe", channels, instruments, request_id, ...options });
  }

  #unsubscribe(symbol) {
    const channels = ["trades", "orders", "book", "ticker"];
    this.#send({ op: "unsubscribe", channels, instruments: [symbol] });
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  // Messages

  #receive(data) {
    this.#heardAt = performance.now();
    this.#failures = 0;
    // An order of somebody else, seen before it is read: most of a busy market's messages.
    if (data.startsWith('{"order_id"') && !data.includes(this.#needle)) return;
    const message = JSON.parse(data);
    if (message.type === "pong") this.#ponged();
    else if (message.type === "error") this.#refused(message);
    else if (this.#isOurs(message)) this.#emit(message.type, message);
  }

  /** Whether it is about what is followed now: messages of what was followed before may come. */
  #isOurs(message) {
    if (message.type === "subscribed") return this.#requests.delete(message.request_id);
    if (message.type === "order") return message.client_id === this.#client && this.#is(message);
    return this.#is(message);
  }

  #is(message) {
    return message.instrument === this.#symbol;
  }

  #ponged() {
    if (this.#pingSentAt === null) return;
    this.#emit("latency", Math.round(performance.now() - this.#pingSentAt));
    this.#pingSentAt = null;
  }

  #refused(message) {
    const request = this.#requests.get(message.request_id);
    if (message.code === "gap") this.#emit("gap", message);
    else if (request && message.code === "unavailable") {
      // One attempt for all that were refused, or they would multiply.
      clearTimeout(this.#againTimer);
      this.#againTimer = setTimeout(() => this.resynchronise(), UNAVAILABLE_RETRY_MS);
    } else this.#emit("refused", message);
  }

  #emit(type, message) {
    for (const handler of this.#handlers.get(type) ?? []) handler(message);
  }
}
