/**
 * Follow a generation from a browser, through reloads, lost sockets, sleeping phones and restarting
 * servers: every token once, in order. No dependencies; reads with the native `EventSource`.
 *
 *     import { Generation } from "/client.js";
 *
 *     const generation = await Generation.create({ prompt: "Why is the sky blue?" });
 *     generation.addEventListener("change", () => render(generation.state));
 *     // after a reload, or in another tab:
 *     const same = Generation.resume(generation.id);
 *
 * Text and cursor change together, in one synchronous step, and are stored as one string. So any
 * stored pair, however old, is a right place to read on from, and no event is appended twice.
 *
 * @typedef {"connecting"|"live"|"reconnecting"|"cut"|"paused"|"ended"|"gone"} Connection
 *   `cut` by `disconnect()`; `paused`: the page is hidden; `ended`: the closing event was read;
 *   `gone`: the service will say no more about this generation, and `error` why.
 * @typedef {import("./answer.js").Answer & {id: string, connection: Connection,
 *   lastEventId: string|null, events: number, resumes: number}} State
 * @typedef {object} Options
 * @property {string} [base] where the API is; default: the page's own origin
 * @property {Storage|null} [storage] keeps text and cursor over a reload; default `sessionStorage`
 * @property {boolean} [withCredentials] send cookies to another origin
 * @property {number} [heartbeatMs] the server's heartbeat interval
 */

import { LOG_EVENTS, NOTHING, fold, fromSnapshot, isClosed } from "./answer.js";
import { findBookmark, keepBookmark, tabStorage } from "./bookmark.js";
import { Problem, backoffMs, drawKey, request, requestUntilAnswered, sleep } from "./request.js";

export { Problem, drawKey, fold };

const HEARTBEAT_MS = 15_000;
/** When the page wakes, a socket heard this recently is taken to be alive. */
const FRESH_MS = 2_000;
/** A hidden page gives its socket back: over HTTP/1.1 all tabs of an origin share six. */
const HIDDEN_GRACE_MS = 5_000;
const SAVE_MS = 500;

/**
 * Fires `change` (`state` has changed), `event` (detail `{type, id, data}`: one entry of the log
 * was folded) and `resumed` (detail `{from}`: a socket opened behind that cursor).
 */
export class Generation extends EventTarget {
  #id; #url; #storage; #credentials; #heartbeatMs;
  #answer = NOTHING;
  /** @type {string|null} */ #cursor = null;
  #events = 0;
  #resumes = 0;
  /** @type {Connection} */ #connection = "connecting";
  /** @type {Problem|null} */ #problem = null;
  /** @type {EventSource|null} */ #source = null;
  /** Rises whenever a socket is given up: what was waiting for its turn then does nothing. */
  #turn = 0;
  #failures = 0;
  #heardAt = 0;
  #saveTimer = 0;
  #hiddenTimer = 0;
  #watchdog = 0;
  /** @type {AbortController|null} */ #listening = null;

  /**
   * Ask for a generation and follow it. A lost or refused POST is repeated with the same key, so it
   * is never paid for twice; draw the `key` yourself to keep that promise over a reload.
   * @param {{prompt: string}|{messages: object[], model?: string}} body
   * @param {Options & {key?: string, signal?: AbortSignal,
   *   onretry?: (retry: {delayMs: number, problem: Problem}) => void}} [options]
   * @returns {Promise<Generation>} @throws {Problem}
   */
  static async create(body, { key = drawKey(), signal, onretry, ...options } = {}) {
    const accepted = await requestUntilAnswered(`${options.base ?? ""}/v1/generations`, {
      method: "POST", body: JSON.stringify(body), signal, credentials: credentialsOf(options),
      headers: { "Content-Type": "application/json", "Idempotency-Key": key },
    }, onretry);
    return Generation.resume(accepted.id, options);
  }

  /**
   * Follow a generation that exists: from where this tab had read it, else from its beginning.
   * @param {string} id @param {Options} [options]
   */
  static resume(id, options = {}) {
    const generation = new Generation(id, options);
    generation.#restore();
    if (isClosed(generation.#answer)) generation.#connection = "ended";
    else generation.reconnect();
    return generation;
  }

  /** @private use `create` or `resume` @param {string} id @param {Options} options */
  constructor(id, options) {
    super();
    this.#id = id;
    this.#url = `${options.base ?? ""}/v1/generations/${encodeURIComponent(id)}`;
    this.#storage = options.storage === undefined ? tabStorage() : options.storage;
    this.#credentials = credentialsOf(options);
    this.#heartbeatMs = options.heartbeatMs ?? HEARTBEAT_MS;
  }

  get id() { return this.#id; }

  /** @returns {State} */
  get state() {
    const error = this.#problem ?? this.#answer.error;
    return { ...this.#answer, error, id: this.#id, connection: this.#connection,
      lastEventId: this.#cursor, events: this.#events, resumes: this.#resumes };
  }

  /** Stop the generation itself, for everyone who follows it. @throws {Problem} */
  async cancel() {
    const snapshot = await requestUntilAnswered(`${this.#url}/cancel`, {
      method: "POST", credentials: this.#credentials });
    if (!this.#isOver) this.#adopt(snapshot);
  }

  /** Close the socket and stay away; the generation goes on. */
  disconnect() {
    if (this.#isOver) return;
    this.#leave();
    this.#show("cut");
  }

  /** Come back from `disconnect()`, or open a new socket now. */
  reconnect() {
    if (this.#isOver) return;
    this.#listen();
    this.#open();
  }

  get #isOver() { return this.#connection === "ended" || this.#connection === "gone"; }

  #open() {
    this.#drop();
    this.#heardAt = Date.now();
    const query = this.#cursor === null ? "" : `?last_event_id=${encodeURIComponent(this.#cursor)}`;
    const source = new EventSource(`${this.#url}/events${query}`, {
      withCredentials: this.#credentials === "include" });
    this.#source = source;
    const on = (type, react) => source.addEventListener(type, (event) => {
      this.#heardAt = Date.now();
      react(event);
    });
    on("open", () => this.#opened());
    on("heartbeat", () => {});
    // The server drains and ends the response; the browser waits as told and comes back.
    on("reconnect", () => this.#show("reconnecting"));
    for (const type of LOG_EVENTS) on(type, (event) => this.#take(type, event));
    // The browser reopens a lost socket by itself, but any answer other than 200 ends its efforts.
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) this.#recover();
      this.#show("reconnecting");
    });
    this.#show(this.#cursor === null ? "connecting" : "reconnecting");
  }

  #opened() {
    this.#failures = 0;
    const from = this.#cursor;
    if (from !== null) this.#resumes += 1;
    this.#show("live");
    if (from !== null) this.#emit("resumed", { from });
  }

  /** @param {string} type @param {MessageEvent} event */
  #take(type, event) {
    let data;
    try {
      data = JSON.parse(event.data);
    } catch {
      return void this.#recover(); // unreadable: ask for the whole instead of skipping a piece
    }
    this.#answer = fold(this.#answer, type, data);
    this.#cursor = event.lastEventId || this.#cursor;
    this.#events += 1;
    if (isClosed(this.#answer)) this.#end("ended");
    else this.#saveTimer ||= setTimeout(() => this.#save(), SAVE_MS);
    this.#emit("event", { type, id: event.lastEventId, data });
    this.#emit("change");
  }

  /** The events cannot be had: is it over, is it unknown, or is the service away? */
  async #recover() {
    this.#drop();
    const turn = this.#turn;
    if (this.#failures > 0) await sleep(backoffMs(this.#failures));
    if (turn !== this.#turn) return;
    this.#failures += 1;
    let snapshot;
    try {
      snapshot = await request(this.#url, { credentials: this.#credentials });
    } catch (problem) {
      if (turn !== this.#turn) return;
      if (problem.retryable) return void this.#recover();
      this.#problem = problem;
      this.#end("gone");
      return this.#emit("change");
    }
    if (turn === this.#turn) this.#adopt(snapshot);
  }

  /** A snapshot's text and `last_event_id` belong together, so it replaces all there is here. */
  #adopt(snapshot) {
    this.#drop();
    this.#answer = fromSnapshot(this.#answer, snapshot);
    this.#cursor = snapshot.last_event_id ?? null;
    if (isClosed(this.#answer)) this.#end("ended");
    else if (this.#listening) this.#reopenLater();
    this.#emit("change");
  }

  async #reopenLater() {
    const turn = this.#turn;
    await sleep(backoffMs(this.#failures));
    if (turn === this.#turn) this.#open();
  }

  /** A closed `EventSource` delivers nothing more, not even what it had already received. */
  #drop() {
    this.#turn += 1;
    this.#source?.close();
    this.#source = null;
  }

  #leave() {
    this.#drop();
    this.#listening?.abort();
    this.#listening = null;
    clearInterval(this.#watchdog);
    clearTimeout(this.#hiddenTimer);
    this.#save();
  }

  /** @param {"ended"|"gone"} connection */
  #end(connection) {
    this.#leave();
    this.#connection = connection;
  }

  /** Phones kill sockets without a word, so the page's waking and the clock are watched too. */
  #listen() {
    if (this.#listening) return;
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    document.addEventListener("visibilitychange", () => this.#look(), { signal });
    window.addEventListener("online", () => this.#look(), { signal });
    window.addEventListener("pageshow", () => this.#look(), { signal });
    // An open socket would keep the page out of the back/forward cache.
    window.addEventListener("pagehide", () => this.#pause(), { signal });
    this.#watchdog = setInterval(() => {
      if (this.#source && Date.now() - this.#heardAt > 2 * this.#heartbeatMs) this.#open();
    }, this.#heartbeatMs / 3);
    if (document.hidden) this.#look();
  }

  #look() {
    clearTimeout(this.#hiddenTimer);
    if (document.hidden) {
      this.#save();
      this.#hiddenTimer = setTimeout(() => this.#pause(), HIDDEN_GRACE_MS);
    } else if (!this.#source || Date.now() - this.#heardAt > FRESH_MS) {
      this.#open();
    }
  }

  #pause() {
    this.#drop();
    this.#save();
    this.#show("paused");
  }

  /** @param {Connection} connection */
  #show(connection) {
    if (this.#connection === connection) return;
    this.#connection = connection;
    this.#emit("change");
  }

  #emit(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  #save() {
    clearTimeout(this.#saveTimer);
    this.#saveTimer = 0;
    if (this.#cursor === null) return;
    keepBookmark(this.#storage, this.#id, { answer: this.#answer, cursor: this.#cursor,
      events: this.#events, resumes: this.#resumes });
  }

  #restore() {
    const found = findBookmark(this.#storage, this.#id);
    if (!found) return;
    this.#answer = found.answer;
    this.#cursor = found.cursor;
    this.#events = found.events;
    this.#resumes = found.resumes;
  }
}

/** @param {Options} options @returns {RequestCredentials} */
const credentialsOf = (options) => (options.withCredentials ? "include" : "same-origin");
