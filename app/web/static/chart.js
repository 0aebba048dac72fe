// Candles and volume, drawn by TradingView's Lightweight Charts where set-up fetched it. The one
// place where prices become floats: they are only drawn.

import { candleLook, chartLook, VOLUME_HEIGHT, volumeTints } from "./chart_look.js";
import { painter } from "./painting.js";
import { get } from "./rest.js";
import { kept } from "./session.js";
import { byId, grouped, setText, trimmed } from "./text.js";

const LIBRARY = "/assets/lightweight-charts.mjs";
const INTERVAL_KEY = "crossbook.interval";
const INTERVALS_S = { "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "1d": 86_400 };
const PAGE = 500;
const CANDLES_MAX = 5_000;
/** How many bars may be left unseen on the left before earlier ones are asked for. */
const EDGE_BARS = 20;
/** Candles are asked for again this often after a trade: they are the records' own, */
const REFRESH_MS = 2_000;
/** which may be a little behind: so long. */
const SETTLED_MS = 10_000;
const REFRESHED_MAX = 1_000;
/** Until it is seen. */
const USUAL_SIZE = { width: 600, height: 300 };

function seconds(timestamp) {
  return Date.parse(timestamp) / 1000;
}

export class Chart {
  #library = null;
  #chart = null;
  #candles = null;
  #volumes = null;
  #bars = new Map(); // time in seconds -> candle of the API, oldest first
  #instrument = null;
  #loads = 0;
  #tradedAt = -Infinity;
  #isAtStart = false;
  #last = null; // the newest candle, moved by trades
  #tints = {}; // colours of volume bars
  #draw = painter(() => this.#drawLast());

  constructor() {
    const interval = kept.get(INTERVAL_KEY);
    this.interval = interval in INTERVALS_S ? interval : "1m";
    this.#listen();
    setInterval(() => this.#refresh(), REFRESH_MS);
  }

  async start() {
    try {
      this.#library = await import(LIBRARY);
    } catch {
      byId("chart-missing").hidden = false;
      return;
    }
    this.#make();
    await this.load();
  }

  /** Show another instrument: nothing until `load`, which comes by itself where nobody asks for it. */
  show(instrument) {
    const isAnother = this.#instrument?.symbol !== instrument.symbol;
    this.#instrument = instrument;
    if (isAnother && this.#chart) this.#clear();
  }

  /** Move the newest candle. Its volume comes with the next refresh. */
  trade({ price, timestamp }) {
    this.#tradedAt = performance.now();
    if (!this.#last) return;
    const value = Number(price);
    const length = INTERVALS_S[this.interval];
    const time = Math.floor(seconds(timestamp) / length) * length;
    const last = this.#last;
    if (time < last.time) return;
    if (time > last.time) this.#last = { time, open: value, high: value, low: value, close: value };
    else {
      last.high = Math.max(last.high, value);
      last.low = Math.min(last.low, value);
      last.close = value;
    }
    this.#draw();
  }

  /** Colours are other ones. */
  recolour() {
    if (!this.#chart) return;
    this.#chart.applyOptions(chartLook());
    this.#candles.applyOptions(this.#candleLook());
    this.#drawVolumes();
  }

  // Drawing

  #make() {
    const { createChart, CandlestickSeries, HistogramSeries } = this.#library;
    const canvas = byId("chart-canvas");
    this.#chart = createChart(canvas, { ...USUAL_SIZE, ...chartLook() });
    new ResizeObserver(([{ contentRect }]) => this.#resize(contentRect)).observe(canvas);
    this.#candles = this.#chart.addSeries(CandlestickSeries, this.#candleLook());
    this.#volumes = this.#chart.addSeries(HistogramSeries, {
      priceScaleId: "volume",
      priceFormat: { type: "volume" },
      lastValueVisible: false,
      priceLineVisible: false,
    });
    this.#volumes
      .priceScale()
      .applyOptions({ scaleMargins: { top: 1 - VOLUME_HEIGHT, bottom: 0 } });
    this.#chart.subscribeCrosshairMove(({ time }) => this.#legend(time));
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (range && range.from < EDGE_BARS) this.#loadEarlier();
    });
  }

  /** Out of sight it keeps its size: without any it would forget which candles it showed. */
  #resize({ width, height }) {
    if (width > 0 && height > 0) this.#chart.resize(width, height);
  }

  #candleLook() {
    this.#tints = volumeTints();
    return candleLook(this.#instrument?.price);
  }

  #volume(time, bar) {
    const isUp = Number(bar.close) >= Number(bar.open);
    return { time, value: Number(bar.volume), color: isUp ? this.#tints.up : this.#tints.down };
  }

  #drawVolumes() {
    this.#volumes.setData([...this.#bars].map(([time, bar]) => this.#volume(time, bar)));
  }

  #drawLast() {
    if (this.#last && this.#candles) this.#candles.update({ ...this.#last });
    this.#legend(undefined);
  }

  #legend(time) {
    const bar = time === undefined ? [...this.#bars.values()].at(-1) : this.#bars.get(time);
    const isLast = time === undefined || time === this.#last?.time;
    if (!bar || !this.#instrument) return setText(byId("chart-legend"), "");
    const decimals = this.#instrument.price.decimals;
    const shown = isLast && this.#last?.time === seconds(bar.start) ? this.#last : bar;
    const parts = ["open", "high", "low", "close"].map((name) => {
      return `${name[0].toUpperCase()} ${grouped(Number(shown[name]).toFixed(decimals))}`;
    });
    setText(byId("chart-legend"), `${parts.join("  ")}  Vol ${grouped(trimmed(bar.volume))}`);
  }

  // Candles

  #listen() {
    for (const input of document.querySelectorAll('input[name="interval"]')) {
      input.checked = input.value === this.interval;
      input.addEventListener("change", () => {
        this.interval = input.value;
        kept.set(INTERVAL_KEY, this.interval);
        if (this.#chart) this.#clear();
        this.load();
      });
    }
  }

  #clear() {
    this.#loads += 1;
    this.#bars = new Map();
    this.#last = null;
    this.#isAtStart = false;
    this.#tradedAt = performance.now();
    this.#candles.setData([]);
    this.#volumes.setData([]);
    this.#candles.applyOptions(this.#candleLook());
    setText(byId("chart-legend"), "");
    setText(byId("chart-empty"), "");
  }

  async #ask(query) {
    const load = this.#loads;
    const common = { instrument: this.#instrument.symbol, interval: this.interval };
    try {
      const { candles } = await get("/candles", { ...common, ...query });
      return load === this.#loads ? candles : null;
    } catch {
      return null; // the banner says what is wrong; the next refresh asks again
    }
  }

  /** The newest candles: the first ones, or what happened since. */
  async load() {
    if (!this.#chart || !this.#instrument) return;
    const isFirst = this.#bars.size === 0;
    const candles = await this.#ask({ limit: PAGE });
    if (!candles) return;
    this.#take(candles);
    if (isFirst) this.#chart.timeScale().scrollToRealTime();
  }

  /** Draw all that is known with these candles of the records, older or newer. */
  #take(candles) {
    const all = [...this.#bars.values(), ...candles].sort((a, b) => (a.start < b.start ? -1 : 1));
    this.#bars = new Map(all.map((bar) => [seconds(bar.start), bar]).slice(-CANDLES_MAX));
    const bars = [...this.#bars].map(([time, bar]) => candle(time, bar));
    this.#candles.setData(bars);
    this.#drawVolumes();
    if (bars.length > 0) this.#settle(bars.at(-1));
    setText(byId("chart-empty"), this.#last ? "" : "No trades yet");
    this.#legend(undefined);
  }

  /** The newest candle of the records; trades may have moved it further already. */
  #settle(bar) {
    const moved = this.#last;
    if (moved && moved.time > bar.time) return this.#draw();
    this.#last = { ...bar };
    if (moved?.time === bar.time) {
      this.#last.high = Math.max(bar.high, moved.high);
      this.#last.low = Math.min(bar.low, moved.low);
      this.#last.close = moved.close;
    }
    this.#draw();
  }

  async #loadEarlier() {
    if (this.#isAtStart || this.#bars.size === 0 || this.#bars.size >= CANDLES_MAX) return;
    this.#isAtStart = true; // until the answer says otherwise
    const [oldest] = this.#bars.keys();
    const start = new Date((oldest - PAGE * INTERVALS_S[this.interval]) * 1000).toISOString();
    const end = new Date(oldest * 1000).toISOString();
    const candles = await this.#ask({ start, end, limit: PAGE });
    if (!candles) return;
    const earlier = candles.filter((bar) => seconds(bar.start) < oldest);
    this.#isAtStart = earlier.length === 0;
    if (earlier.length > 0) this.#take(earlier);
  }

  /** The newest candles again, where something traded or their time is over. */
  async #refresh() {
    const isOver = this.#last && Date.now() / 1000 >= this.#last.time + INTERVALS_S[this.interval];
    if (document.hidden || !this.#chart || !this.#instrument) return;
    const hasTraded = performance.now() - this.#tradedAt < SETTLED_MS;
    if (!hasTraded && !isOver) return;
    if (this.#bars.size === 0) return this.load();
    const newest = [...this.#bars.keys()].at(-1);
    const start = new Date((newest - INTERVALS_S[this.interval]) * 1000).toISOString();
    const candles = await this.#ask({ start, limit: REFRESHED_MAX });
    if (candles) this.#bringUpToDate(candles);
  }

  #bringUpToDate(candles) {
    const times = candles.map((bar) => seconds(bar.start));
    const isInPlace = times.every((time) => this.#bars.has(time) || time >= this.#last.time);
    if (!isInPlace || this.#bars.size > CANDLES_MAX) return this.#take(candles);
    candles.forEach((bar, i) => this.#update(times[i], bar));
    this.#legend(undefined);
  }

  #update(time, bar) {
    this.#bars.set(time, bar);
    const isOver = time < this.#last.time;
    if (isOver) this.#candles.update(candle(time, bar), true);
    else this.#settle(candle(time, bar));
    this.#volumes.update(this.#volume(time, bar), isOver);
  }
}

function candle(time, bar) {
  const [open, high, low, close] = [bar.open, bar.high, bar.low, bar.close].map(Number);
  return { time, open, high, low, close };
}
