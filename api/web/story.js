/**
 * What happened to one generation in this tab, for people: moments to list and seams to paint.
 * Told from the client's events; kept over a reload.
 *
 * @typedef {{kind: string, at: number, title: string, note: string, number: number|null}} Moment
 */

import { shortId } from "./words.js";

const PREFIX = "rejoin:story:1:";

export class Story {
  /** @type {Moment[]} */ moments = [];
  /** @type {import("./paper.js").Seam[]} */ seams = [];
  #generation;
  #storage;
  #listening = new AbortController();
  #connection = "";
  /** When the line was last seen alive, while it is not. */
  #awaySince = 0;
  /** The moment and seam whose waiting words have not come yet. */
  #arriving = null;

  /**
   * @param {import("./client.js").Generation} generation
   * @param {{storage: Storage|null, joined: boolean}} options `joined`: somebody else asked
   */
  constructor(generation, { storage, joined }) {
    this.#generation = generation;
    this.#storage = storage;
    const found = this.#restore();
    if (generation.state.connection !== "ended") {
      if (found) this.#reopen();
      else if (joined) this.#arriving = { moment: this.#add("joined", "Joined late"), seam: null };
    }
    const { signal } = this.#listening;
    generation.addEventListener("change", () => this.#changed(), { signal });
    generation.addEventListener("event", ({ detail }) => this.#read(detail), { signal });
    generation.addEventListener("resumed", ({ detail }) => this.#resumed(detail.from), { signal });
    window.addEventListener("pagehide", () => this.#keep(), { signal });
  }

  close() {
    this.#listening.abort();
    this.#keep();
  }

  #reopen() {
    // A page that goes away sees its own socket close.
    if (this.moments.at(-1)?.kind === "lost") this.moments.pop();
    this.#add("reload", "Opened again");
  }

  #changed() {
    const { connection, error } = this.#generation.state;
    if (connection === this.#connection) return;
    const was = this.#connection;
    this.#connection = connection;
    if (was === "live" && connection !== "ended") this.#awaySince = Date.now();
    if (connection === "cut") this.#add("cut", "You cut the line");
    if (was === "paused") this.#add("paused", "Hidden for a while, this tab had hung up");
    if (connection === "reconnecting" && was === "live") this.#add("lost", "The line was lost");
    if (connection === "gone") this.#add("failed", "Nothing more to read", error?.message ?? "");
  }

  #read({ type, data }) {
    if (type === "started" && data.attempt > 1) {
      this.#add("started", `Attempt ${data.attempt} began`, STARTS[data.resume] ?? "");
    }
    if (type === "retrying") {
      this.#add("retrying", "The model had to be asked again", `After a pause of ${seconds(data.delay_ms)}`);
    }
    if (type === "reset") {
      this.seams = [];
      this.#arriving = null;
      this.#add("reset", "The answer began anew", "What stood here before was forgotten");
    }
    if (type === "token" && this.#arriving) this.#arrived(data.text.length);
    if (type === "done") this.#add("done", "Complete");
    if (type === "cancelled") this.#add("cancelled", "Stopped", "The text so far stands");
    if (type === "failed") this.#add("failed", "Failed", data.message);
  }

  #resumed(from) {
    const number = this.moments.filter((moment) => moment.number !== null).length + 1;
    const moment = this.#add("resumed", `Resumed after ${shortId(from)}`, "", number);
    if (this.#awaySince) moment.note = `${seconds(Date.now() - this.#awaySince)} away`;
    this.#awaySince = 0;
    const at = this.#generation.state.text.length;
    this.#arriving = { moment, seam: this.#sew(at, number, moment.title) };
  }

  #arrived(characters) {
    const { moment, seam } = this.#arriving;
    if (seam) seam.waiting = characters;
    const waited = `${characters} character${characters === 1 ? "" : "s"} had been waiting`;
    moment.note = moment.note ? `${moment.note}, ${waited}` : waited;
    this.#arriving = null;
  }

  /** Two seams in one place are one: nothing was written in between. */
  #sew(at, number, title) {
    if (this.seams.at(-1)?.at === at) this.seams.pop();
    const seam = { at, number, title, waiting: 0 };
    this.seams.push(seam);
    return seam;
  }

  #add(kind, title, note = "", number = null) {
    const moment = { kind, at: Date.now(), title, note, number };
    this.moments.push(moment);
    return moment;
  }

  get #key() { return PREFIX + this.#generation.id; }

  #keep() {
    const awaySince = this.#connection === "ended" ? 0 : this.#awaySince || Date.now();
    try {
      this.#storage?.setItem(this.#key,
        JSON.stringify({ moments: this.moments, seams: this.seams, awaySince }));
    } catch {
      // Full: the story is told anew.
    }
  }

  #restore() {
    try {
      const kept = JSON.parse(this.#storage?.getItem(this.#key) ?? "null");
      if (!kept) return false;
      this.moments = kept.moments;
      this.seams = kept.seams;
      this.#awaySince = kept.awaySince;
      return true;
    } catch {
      return false;
    }
  }
}

const STARTS = {
  reattach: "Attached again to the same answer at the model",
  continue: "Went on from the text so far",
  restart: "Started over",
};

const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
