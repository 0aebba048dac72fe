// Subscribers who prove that the book channel is gapless and the trade channel repeats nothing,
// while others place and cancel orders (README.md says more).

import { check } from 'k6';
import exec from 'k6/execution';
import http from 'k6/http';
import { Counter } from 'k6/metrics';
import ws from 'k6/ws';
import { Flow } from './flow.js';
import { Book, Trades } from './replica.js';
import { count, perSecond, report, thousands } from './report.js';
import {
  BASE_URL, CANCEL_SHARE, COMMON_OPTIONS, DURATION_S, INSTRUMENT, newRun, ORDERS_RATE, SUBSCRIBERS,
  TRADERS,
} from './settings.js';

const HEAD_START_S = 1; // subscribers are there before the first order
const QUIET_S = 2; // after the last order, for what is under way to arrive
const LEVELS_COMPARED = 1_000;
const WS_URL = `${BASE_URL.replace(/^http/, 'ws')}/ws`;

const orders = new Counter('orders');
const deltas = new Counter('deltas');
const trades = new Counter('trades');
const gaps = new Counter('gaps'); // a message that is not the next one
const repeats = new Counter('repeats'); // a message that had been there
const unread = new Counter('unread'); // what REST knew at the end and the stream never said
const booksEqual = new Counter('books_equal'); // snapshot and deltas make the book of REST
const booksDiffer = new Counter('books_differ');
const errors = new Counter('stream_errors');

export const options = {
  ...COMMON_OPTIONS,
  scenarios: {
    subscribers: {
      executor: 'per-vu-iterations', exec: 'subscribe', vus: SUBSCRIBERS, iterations: 1,
      maxDuration: `${DURATION_S + 60}s`,
    },
    traders: {
      executor: 'constant-arrival-rate', exec: 'trade', rate: ORDERS_RATE, timeUnit: '1s',
      preAllocatedVUs: TRADERS, maxVUs: 4 * TRADERS, duration: `${DURATION_S}s`,
      startTime: `${HEAD_START_S}s`,
    },
  },
  thresholds: {
    gaps: ['count==0'],
    repeats: ['count==0'],
    unread: ['count==0'],
    books_differ: ['count==0'],
    books_equal: ['count>0'],
    stream_errors: ['count==0'],
    deltas: ['count>0'],
    trades: ['count>0'],
    checks: ['rate==1'],
    http_req_failed: ['rate==0'],
  },
};

export function setup() {
  return newRun();
}

// --- subscribers

export function subscribe() {
  const book = new Book();
  const seen = new Trades();
  const response = ws.connect(WS_URL, null, (socket) => {
    socket.on('open', () => socket.send(JSON.stringify({
      op: 'subscribe', channels: ['trades', 'book'], instruments: [INSTRUMENT],
    })));
    socket.on('message', (text) => take(JSON.parse(text), book, seen));
    socket.on('error', (problem) => complain(problem.error()));
    socket.on('close', (code) => code === 1000 || complain(`closed with ${code}`));
    socket.setTimeout(() => finish(socket, book), (HEAD_START_S + DURATION_S + QUIET_S) * 1_000);
  });
  if (!check(response, { 'the socket opened': (r) => r && r.status === 101 })) {
    complain(`${WS_URL} answered ${response && response.status}`);
  }
}

function complain(what) {
  errors.add(1);
  console.error(`subscriber ${exec.vu.idInTest}: ${what}`);
}

function take(message, book, seen) {
  switch (message.type) {
    case 'book_snapshot':
      note(book.start(message), message);
      break;
    case 'book_delta':
      deltas.add(1);
      note(book.apply(message), message);
      break;
    case 'trade':
      trades.add(1);
      note(seen.take(message), message);
      break;
    case 'error':
      complain(JSON.stringify(message));
      break;
  }
}

function note(verdict, message) {
  if (verdict === 'next') {
    return;
  }
  (verdict === 'gap' ? gaps : repeats).add(1);
  console.error(`subscriber ${exec.vu.idInTest}: ${verdict} at ${JSON.stringify(message)}`);
}

// What REST says now must arrive; where nobody else traded meanwhile the two books must be equal.
function finish(socket, book) {
  const query = `instrument=${INSTRUMENT}&levels=${LEVELS_COMPARED}`;
  const told = http.get(`${BASE_URL}/orderbook?${query}`).json();
  socket.setTimeout(() => {
    unread.add(Math.max(0, told.sequence - book.sequence));
    if (told.sequence === book.sequence) {
      (book.equals(told, LEVELS_COMPARED) ? booksEqual : booksDiffer).add(1);
    }
    socket.close(1000);
  }, QUIET_S * 1_000);
}

// --- traders

const PLACE = {
  headers: { 'Content-Type': 'application/json' },
  responseCallback: http.expectedStatuses(201),
};
const CANCEL = { responseCallback: http.expectedStatuses(200, 409) };

let flow; // one in each user's own interpreter
let lastOpen;

export function trade({ run, startedMs }) {
  flow = flow || new Flow({ user: exec.vu.idInTest, instrument: INSTRUMENT, run, startedMs });
  if (lastOpen && flow.chance(CANCEL_SHARE)) {
    http.del(`${BASE_URL}/orders/${lastOpen}`, null, CANCEL);
    lastOpen = undefined;
    return;
  }
  const response = http.post(`${BASE_URL}/orders`, flow.next(), PLACE);
  if (response.status === 201) {
    orders.add(1);
    const isOpen = response.json('order.status') === 'open';
    lastOpen = isOpen ? response.json('order.order_id') : lastOpen;
  }
}

export function handleSummary(data) {
  const total = (name) => thousands(count(data, name));
  const figures = {};
  for (const name of ['orders', 'deltas', 'trades', 'gaps', 'repeats', 'unread', 'books_equal',
    'books_differ', 'stream_errors']) {
    figures[name] = count(data, name);
  }
  return report(`stream.js: ${SUBSCRIBERS} subscribers for ${DURATION_S} s at ${WS_URL}`, data, [
    ['orders', `${total('orders')} accepted while they listened`],
    ['messages', `${total('deltas')} book deltas (${thousands(perSecond(data, 'deltas'))}/s), ` +
      `${total('trades')} trades`],
    ['gaps', `${total('gaps')}   repeats ${total('repeats')}   never arrived ${total('unread')}`],
    ['books', `${total('books_equal')} equal to REST at the end, ${total('books_differ')} not`],
    ['errors', total('stream_errors')],
  ], figures);
}
