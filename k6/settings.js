// What the environment decides, for every script here, each with its default.

function number(name, fallback) {
  const text = __ENV[name];
  if (text === undefined || text === '') {
    return fallback;
  }
  const value = Number(text);
  if (!(value >= 0)) {
    throw new Error(`${name}=${text} is not allowed: give a number that is not negative`);
  }
  return value;
}

export const BASE_URL = (__ENV.BASE_URL || 'http://127.0.0.1:3000').replace(/\/+$/, '');
export const INSTRUMENT = __ENV.INSTRUMENT || 'BTC-USD';
export const USERS = number('USERS', 100);
export const DURATION_S = number('DURATION_S', 60);
export const SEED = number('SEED', 1);
export const CANCEL_SHARE = number('CANCEL_SHARE', 0.2);
export const ORDERS_PER_S_MIN = number('ORDERS_PER_S_MIN', 2_000);
export const MEDIAN_MS_MAX = number('MEDIAN_MS_MAX', 100);
export const P95_MS_MAX = number('P95_MS_MAX', 250);
// Of stream.js alone.
export const SUBSCRIBERS = number('SUBSCRIBERS', 20);
export const TRADERS = number('TRADERS', 50);
export const ORDERS_RATE = number('ORDERS_RATE', 500); // places and cancels per second
// Where the figures go as JSON, besides the text on standard output.
export const FIGURES_FILE = __ENV.FIGURES_FILE || '';

// What k6 itself should do, alike in every script. No tags: a tag for each order's URL would
// be a time series for each order.
export const COMMON_OPTIONS = {
  systemTags: [],
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
  noCookiesReset: true,
};

// Names a run and says when it began; each script's setup() returns it to all its users.
export function newRun() {
  const startedMs = Date.now();
  return { run: startedMs.toString(36), startedMs };
}
