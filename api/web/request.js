/** JSON requests that may be repeated: with back-off, the server's `Retry-After`, and one key. */

const TIMEOUT_MS = 30_000;
const TRIES = 10;
/** A service that asks for a longer pause is reported instead of waited for. */
const PATIENCE_MS = 60_000;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_LIMIT_MS = 8_000;

/** The service said no (RFC 9457), or could not be asked (`status` 0). */
export class Problem extends Error {
  /** @param {number} status @param {any} body @param {number} [retryAfterMs] */
  constructor(status, body, retryAfterMs = 0) {
    super(body?.detail || body?.title || (status ? `HTTP ${status}` : "The service is unreachable"));
    this.name = "Problem";
    this.status = status;
    /** @type {string} */
    this.code = body?.code ?? (status ? `http_${status}` : "unreachable");
    this.retryAfterMs = retryAfterMs;
    this.retryable = status === 0 || status === 408 || status === 429 || status >= 500;
  }
}

/**
 * One try. @param {string} url @param {RequestInit} init
 * @returns {Promise<any>} the JSON answer @throws {Problem}
 */
export async function request(url, init = {}) {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const signal = init.signal ? AbortSignal.any([init.signal, timeout]) : timeout;
  let response, body;
  try {
    response = await fetch(url, { cache: "no-store", ...init, signal });
    body = await response.json();
  } catch {
    init.signal?.throwIfAborted();
    // An answer that broke off, or is not JSON, may still have done its work: as good as lost.
    if (!response || response.ok) throw new Problem(0, null);
  }
  if (response.ok) return body;
  throw new Problem(response.status, body, retryAfterMs(response.headers.get("Retry-After")));
}

/**
 * Repeat what is safe to repeat: an idempotent request, or one that carries an `Idempotency-Key`.
 * @param {string} url @param {RequestInit} init
 * @param {(retry: {delayMs: number, problem: Problem}) => void} [onretry]
 * @returns {Promise<any>} @throws {Problem}
 */
export async function requestUntilAnswered(url, init, onretry) {
  for (let failures = 1; ; failures += 1) {
    try {
      return await request(url, init);
    } catch (problem) {
      const refused = !(problem instanceof Problem) || !problem.retryable;
      if (refused || failures === TRIES || problem.retryAfterMs > PATIENCE_MS) throw problem;
      const delayMs = Math.max(backoffMs(failures), problem.retryAfterMs);
      onretry?.({ delayMs, problem });
      await sleep(delayMs);
      init.signal?.throwIfAborted();
    }
  }
}

/** Doubles with each failure; half of it is jitter, so that clients do not return together. */
export function backoffMs(failures) {
  const limit = Math.min(BACKOFF_LIMIT_MS, BACKOFF_FIRST_MS * 2 ** (failures - 1));
  return limit / 2 + Math.random() * (limit / 2);
}

export const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** Not `randomUUID`: that exists only on https and localhost, and a demo may run on neither. */
export function drawKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Seconds or a date (RFC 9110, 10.2.3). @param {string|null} header */
function retryAfterMs(header) {
  if (!header) return 0;
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : 0;
}
