// The places of orders.js, at a Flask endpoint that does nothing: what this machine, the load
// generator and the web server cost before any order is looked at (README.md says more).

import { check } from 'k6';
import http from 'k6/http';
import { Counter } from 'k6/metrics';
import { Flow } from './flow.js';
import { count, latency, latencyText, perSecond, report, thousands } from './report.js';
import {
  BASE_URL, COMMON_OPTIONS, DURATION_S, INSTRUMENT, newRun, USERS,
} from './settings.js';

const orders = new Counter('orders');

export const options = {
  ...COMMON_OPTIONS,
  scenarios: {
    trade: { executor: 'constant-vus', vus: USERS, duration: `${DURATION_S}s` },
  },
  thresholds: { http_req_failed: ['rate==0'], checks: ['rate==1'] },
};

const PLACE = {
  headers: { 'Content-Type': 'application/json' },
  responseCallback: http.expectedStatuses(201),
};
const PLACED = { 'a place is answered with 201': (response) => response.status === 201 };

let flow; // one in each user's own interpreter
let orderId; // read and dropped: reading answers is part of the same load

export function setup() {
  return newRun();
}

export default function ({ run, startedMs }) {
  flow = flow || new Flow({ user: __VU, instrument: INSTRUMENT, run, startedMs });
  const response = http.post(`${BASE_URL}/orders`, flow.next(), PLACE);
  if (check(response, PLACED)) {
    orders.add(1);
    orderId = response.json('order.status') === 'open' && response.json('order.order_id');
  }
}

export function handleSummary(data) {
  const figures = {
    orders: count(data, 'orders'),
    orders_per_s: perSecond(data, 'orders'),
    requests: count(data, 'http_reqs'),
    requests_per_s: perSecond(data, 'http_reqs'),
    failures: count(data, 'http_req_failed'),
    ...latency(data),
  };
  return report(`noop.js: ${USERS} users for ${DURATION_S} s at ${BASE_URL}`, data, [
    ['requests/s', thousands(figures.requests_per_s)],
    ['latency ms', latencyText(figures)],
    ['failures', `${thousands(figures.failures)} of ${thousands(figures.requests)} requests`],
  ], figures);
}
