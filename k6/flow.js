// The order flow of one virtual user: seeded, around a mid that wanders, as JSON bodies for
// POST /orders. The same seed gives every user the same orders in every run; only the idempotency
// keys carry the run, because a server remembers them for a day. Knows nothing of HTTP.

import { SharedArray } from 'k6/data';
import { SEED } from './settings.js';

const TICKS_PER_USD = 100;
const LOTS_PER_SIZE_STEP = 10_000; // sizes are multiples of 0.0001 BTC
const LOTS_PER_BTC = 100_000_000;
const MID_TICKS = 6_000_000;
const STEP_MS = 100; // how often the mid moves
const STEPS = 6_000; // ten minutes of wandering, then from the start again
const STEP_TICKS = 60; // standard deviation of one move
const PULL_TO_CENTRE = 0.001; // of the distance, each step: or it would drift out of sight

const MARKET_SHARE = 0.02; // of all orders
const CROSSING_SHARE = 0.2; // of the limit orders are priced through the mid
const CROSSING_TICKS_MAX = 500;
const AWAY_LOG_MEAN = 5.5; // distance from the mid: most within a few dollars, a tail reaches far
const AWAY_LOG_DEVIATION = 1.4;
const SIZE_LOG_MEAN = 6.2; // median 0.05 BTC
const SIZE_LOG_DEVIATION = 1.2;
const SIZE_STEPS_MAX = 200_000; // 20 BTC

// mulberry32: a small generator whose whole state is one integer.
function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

function normal(random) {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

function wander(seed) {
  const random = uniform(seed);
  const path = new Array(STEPS);
  let mid = MID_TICKS;
  for (let step = 0; step < STEPS; step++) {
    path[step] = Math.round(mid);
    mid += normal(random) * STEP_TICKS + (MID_TICKS - mid) * PULL_TO_CENTRE;
  }
  return path;
}

// Where the mid is at each step: one for all users, made once and before the load begins.
const MID = new SharedArray('mid', () => wander(SEED));

export class Flow {
  // `run` names this run in idempotency keys, `startedMs` is when its mid began to wander.
  constructor({ user, instrument, run, startedMs }) {
    this.random = uniform(SEED * 7_919 + user);
    this.startedMs = startedMs;
    this.key = `${run}-${user}-`;
    this.made = 0;
    this.head = `{"instrument":"${instrument}","client_id":"trader-${user}",`;
  }

  chance(share) {
    return this.random() < share;
  }

  // A whole number below `limit`.
  pick(limit) {
    return Math.floor(this.random() * limit);
  }

  // The next order's body.
  next() {
    const side = this.chance(0.5) ? 'buy' : 'sell';
    const what = this.chance(MARKET_SHARE)
      ? `"type":"market","time_in_force":"ioc"`
      : `"type":"limit","time_in_force":"gtc","price":"${this.price(side)}"`;
    this.made++;
    return `${this.head}"side":"${side}",${what},"quantity":"${this.size()}",` +
      `"idempotency_key":"${this.key}${this.made}"}`;
  }

  price(side) {
    const step = Math.floor((Date.now() - this.startedMs) / STEP_MS) % STEPS;
    let away = 1 + Math.round(Math.exp(AWAY_LOG_MEAN + AWAY_LOG_DEVIATION * normal(this.random)));
    if (this.chance(CROSSING_SHARE)) {
      away = -Math.min(away, CROSSING_TICKS_MAX);
    }
    const ticks = Math.max(1, MID[step] + (side === 'buy' ? -away : away));
    return (ticks / TICKS_PER_USD).toFixed(2);
  }

  size() {
    const steps = Math.round(Math.exp(SIZE_LOG_MEAN + SIZE_LOG_DEVIATION * normal(this.random)));
    const lots = Math.min(Math.max(steps, 1), SIZE_STEPS_MAX) * LOTS_PER_SIZE_STEP;
    return (lots / LOTS_PER_BTC).toFixed(8);
  }
}
