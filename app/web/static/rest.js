// Requests to the API of this host. What was refused is thrown as the problem document that came;
// where no answer came, nobody knows what happened, and that is another error.

const TIMEOUT_MS = 10_000;
const KEY_BYTES = 16;

/** An answer other than success: `problem` is the problem+json document. */
export class Refused extends Error {
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

/** No answer, or none that can be read. `isQuestion`: nothing was to be changed. */
export class NoAnswer extends Error {
  constructor(method, cause) {
    super("no answer came", { cause });
    this.isQuestion = method === "GET";
  }
}

/** What came of a call that succeeded: its document, and whether that is the answer to an equal call
 * before it, so that nothing happened again. */
export async function exchange(method, path, body, headers = {}) {
  let response;
  let document;
  try {
    response = await fetch(path, request(method, body, headers));
    document = await response.json();
  } catch (error) {
    throw new NoAnswer(method, error);
  }
  if (!response.ok) throw new Refused(document);
  return { document, isReplayed: response.headers.get("Idempotent-Replayed") === "true" };
}

function request(method, body, headers) {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  if (body === undefined) return { method, headers, cache: "no-store", signal };
  const typed = { "Content-Type": "application/json", ...headers };
  return { method, headers: typed, body: JSON.stringify(body), cache: "no-store", signal };
}

/** The document of a call that succeeded. */
export async function call(method, path, body) {
  return (await exchange(method, path, body)).document;
}

/** GET with a query; what is undefined is left out. */
export function get(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined);
  const text = new URLSearchParams(given).toString();
  return call("GET", text ? `${path}?${text}` : path);
}

export function orderPath(orderId) {
  return `/orders/${encodeURIComponent(orderId)}`;
}

/** A key by which the same order, sent twice, is one order. */
export function newIdempotencyKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  return `page-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
