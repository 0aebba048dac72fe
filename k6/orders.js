// Users who place and cancel limit orders as fast as the server answers (README.md says more).

import { check } from 'k6';
import http from 'k6/http';
import { Counter } from 'k6/metrics';
import { Flow } from './flow.js';
import { count, latency, latencyText, perSecond, report, thousands } from './report.js';
import {
  BASE_URL, CANCEL_SHARE, COMMON_OPTIONS, DURATION_S, INSTRUMENT, MEDIAN_MS_MAX, newRun,
  ORDERS_PER_S_MIN, P95_MS_MAX, USERS,
} from './settings.js';

const OPEN_ORDERS_KEPT = 50; // of each user, as candidates for a cancel

const orders = new Counter('orders'); // accepted
const cancels = new Counter('cancels'); // carried out
const tooLate = new Counter('cancels_too_late'); // the order had been filled: 409, no failure

export const options = {
  ...COMMON_OPTIONS,
  scenarios: {
    trade: { executor: 'constant-vus', vus: USERS, duration: `${DURATION_S}s` },
  },
  thresholds: {
    http_req_failed: ['rate==0'],
    checks: ['rate==1'],
    http_req_duration: [`med<${MEDIAN_MS_MAX}`, `p(95)<${P95_MS_MAX}`],
    orders: [`rate>${ORDERS_PER_S_MIN}`],
  },
};

const PLACE = {
  headers: { 'Content-Type': 'application/json' },
  responseCallback: http.expectedStatuses(201),
};
const CANCEL = { responseCallback: http.expectedStatuses(200, 409) };
const PLACED = { 'a place is answered with 201': (response) => response.status === 201 };
const CANCELLED = {
  'a cancel is answered with 200, or 409 for an order that is over': (response) =>
    response.status === 200 ||
    (response.status === 409 && response.json('code') === 'order_not_open'),
};

let flow; // one in each user's own interpreter
const open = [];

export function setup() {
  return newRun();
}

export default function ({ run, startedMs }) {
  flow = flow || new Flow({ user: __VU, instrument: INSTRUMENT, run, startedMs });
  if (open.length > 0 && flow.chance(CANCEL_SHARE)) {
    cancel();
  } else {
    place();
  }
}

function place() {
  const response = http.post(`${BASE_URL}/orders`, flow.next(), PLACE);
  if (!check(response, PLACED)) {
    return;
  }
  orders.add(1);
  if (response.json('order.status') === 'open') {
    remember(response.json('order.order_id'));
  }
}

function remember(orderId) {
  if (open.length < OPEN_ORDERS_KEPT) {
    open.push(orderId);
  } else {
    open[flow.pick(OPEN_ORDERS_KEPT)] = orderId;
  }
}

function cancel() {
  const chosen = flow.pick(open.length);
  const orderId = open[chosen];
  open[chosen] = open[open.length - 1];
  open.pop();
  const response = http.del(`${BASE_URL}/orders/${orderId}`, null, CANCEL);
  if (check(response, CANCELLED)) {
    (response.status === 200 ? cancels : tooLate).add(1);
  }
}

export function handleSummary(data) {
  const figures = {
    orders: count(data, 'orders'),
    orders_per_s: perSecond(data, 'orders'),
    requests: count(data, 'http_reqs'),
    requests_per_s: perSecond(data, 'http_reqs'),
    cancels: count(data, 'cancels'),
    cancels_too_late: count(data, 'cancels_too_late'),
    failures: count(data, 'http_req_failed'),
    ...latency(data),
  };
  const { orders_per_s, requests_per_s } = figures;
  return report(`orders.js: ${USERS} users for ${DURATION_S} s at ${BASE_URL}`, data, [
    ['orders/s', `${thousands(orders_per_s)}   (${thousands(figures.orders)} accepted)`],
    ['cancels', `${thousands(figures.cancels)}   ` +
      `(${thousands(figures.cancels_too_late)} too late)`],
    ['requests/s', thousands(requests_per_s)],
    ['latency ms', latencyText(figures)],
    ['failures', `${thousands(figures.failures)} of ${thousands(figures.requests)} requests`],
  ], figures);
}
