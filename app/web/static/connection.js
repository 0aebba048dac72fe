// Says how things stand: whether the connection lives, and whether the venue takes orders.

import { PHASES } from "./feed.js";
import { byId, setText } from "./text.js";

const READY_POLL_MS = 2_000;
const READY_TIMEOUT_MS = 4_000;
const COUNTDOWN_MS = 250;

const LABELS = {
  [PHASES.connecting]: "Connecting",
  [PHASES.live]: "Live",
  [PHASES.waiting]: "Offline",
};

export class ConnectionState {
  #phase = PHASES.connecting;
  #retryAt = 0;
  #wasLive = false;
  #trouble = ""; // of the venue, in words
  #lastSeen = null;
  #isAsking = false;

  /** `recovered` is called when the venue takes orders again. */
  constructor(feed, recovered) {
    this.recovered = recovered;
    feed.on("phase", ({ phase, retryAt }) => this.#enter(phase, retryAt));
    feed.on("latency", (latency_ms) => setText(byId("latency"), `${latency_ms} ms`));
    byId("retry").addEventListener("click", () => feed.retryNow());
    setInterval(() => this.#phase === PHASES.waiting && this.#show(), COUNTDOWN_MS);
    setInterval(() => this.#ask(), READY_POLL_MS);
    this.#show();
  }

  #enter(phase, retryAt) {
    if (this.#phase === PHASES.live) this.#lastSeen = new Date().toISOString().slice(11, 19);
    if (phase === PHASES.live) this.#wasLive = true;
    this.#phase = phase;
    this.#retryAt = retryAt;
    this.#show();
  }

  /** Whether orders can be taken; the connection alone does not tell. */
  async #ask() {
    if (document.hidden || this.#phase !== PHASES.live || this.#isAsking) return;
    this.#isAsking = true;
    const before = this.#trouble;
    this.#trouble = await troubleOf("/readyz");
    this.#isAsking = false;
    if (before && !this.#trouble) this.recovered();
    if (before !== this.#trouble) this.#show();
  }

  #show() {
    const isLive = this.#phase === PHASES.live;
    const isWell = isLive && !this.#trouble;
    document.body.dataset.connection = isWell ? "live" : isLive ? "trouble" : this.#phase;
    setText(byId("connection-label"), isLive && this.#trouble ? "Limited" : LABELS[this.#phase]);
    byId("latency").hidden = !isWell;
    const banner = byId("banner");
    banner.hidden = isWell || (!this.#wasLive && this.#phase === PHASES.connecting);
    byId("retry").hidden = this.#phase !== PHASES.waiting;
    if (!banner.hidden) this.#explain();
  }

  #explain() {
    if (this.#phase === PHASES.live) {
      setText(byId("banner-text"), `${this.#trouble} What you see may be out of date.`);
      setText(byId("banner-wait"), "");
      return;
    }
    const since = this.#lastSeen ? ` What you see is from ${this.#lastSeen} UTC.` : "";
    setText(byId("banner-text"), `The connection is lost.${since}`);
    const wait_s = Math.max(0, Math.ceil((this.#retryAt - Date.now()) / 1000));
    // Apart from the text that is read out: it changes all the time.
    setText(
      byId("banner-wait"),
      this.#phase === PHASES.waiting ? `Next attempt in ${wait_s} s` : "Connecting …",
    );
  }
}

/** What keeps the venue from taking orders, in words; empty where nothing does. */
async function troubleOf(path) {
  let document;
  try {
    const signal = AbortSignal.timeout(READY_TIMEOUT_MS);
    document = await (await fetch(path, { cache: "no-store", signal })).json();
  } catch {
    return "The venue does not answer.";
  }
  if (document.status !== "not_ready") return "";
  const failed = Object.values(document.checks).find((check) => !check.ok && check.detail);
  const why = failed ? `: ${failed.detail}` : "";
  return `Orders cannot be taken now${why}.`;
}
