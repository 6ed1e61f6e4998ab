/** A strip chart of the last seconds: each event a stroke, each absence a gap in the line. */

const WINDOW_MS = 15_000;
/** What arrives within one step is one stroke. */
const STEP_MS = 150;
const STROKE_PX = 2;
const CAUGHT_PX = 4;
/** This many characters within one step are drawn at full height. */
const FULL_CHARACTERS = 120;
/** Without animation the strip moves by the second. */
const CALM_MS = 1_000;

export class Tape {
  #canvas;
  #ink;
  /** @type {{at: number, characters: number, caught: boolean}[]} */ #strokes = [];
  /** @type {{from: number, to: number}[]} */ #spans = [];
  #live = false;
  #running = false;
  #drawnAt = 0;
  #calm = matchMedia("(prefers-reduced-motion: reduce)");

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.#canvas = canvas;
    this.#ink = canvas.getContext("2d");
    new ResizeObserver(() => this.#draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  clear() {
    this.#strokes = [];
    this.#spans = [];
    this.#live = false;
    this.#drawnAt = 0;
    this.stop();
  }

  /** @param {number} characters @param {boolean} caught had it been waiting? */
  stroke(characters, caught) {
    const at = Math.floor(performance.now() / STEP_MS) * STEP_MS;
    const last = this.#strokes.at(-1);
    if (last?.at === at && last.caught === caught) last.characters += characters;
    else this.#strokes.push({ at, characters, caught });
  }

  /** @param {boolean} live */
  connected(live) {
    if (live === this.#live) return;
    this.#live = live;
    const now = performance.now();
    if (live) this.#spans.push({ from: now, to: Infinity });
    else this.#spans.at(-1).to = now;
  }

  run() {
    if (this.#running) return;
    this.#running = true;
    this.#frame();
  }

  stop() {
    this.#running = false;
    this.#draw();
  }

  redraw() { this.#draw(); }

  #frame = () => {
    if (!this.#running) return;
    if (!this.#calm.matches || performance.now() - this.#drawnAt >= CALM_MS) this.#draw();
    requestAnimationFrame(this.#frame);
  };

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    if (!width) return;
    const now = performance.now();
    if (this.#running || !this.#drawnAt) this.#drawnAt = now;
    const scale = window.devicePixelRatio || 1;
    this.#canvas.width = Math.round(width * scale);
    this.#canvas.height = Math.round(height * scale);
    this.#ink.scale(scale, scale);
    const right = this.#running ? now : this.#drawnAt;
    const x = (at) => width - ((right - at) / WINDOW_MS) * width;
    const oldest = right - WINDOW_MS;
    this.#spans = this.#spans.filter((span) => span.to > oldest);
    this.#strokes = this.#strokes.filter((stroke) => stroke.at > oldest);
    const style = getComputedStyle(this.#canvas);
    const colour = (name) => style.getPropertyValue(name);
    const middle = Math.round(height / 2) + 0.5;

    this.#rule(0, width, middle, colour("--tape-gap"), [1, 5]);
    for (const { from, to } of this.#spans) {
      const end = Math.min(x(Math.min(to, right)), width);
      this.#rule(Math.max(0, x(from)), end, middle, colour("--tape-line"), []);
      if (x(from) > 0) this.#cap(x(from), middle, colour("--tape-line"));
      if (to < right) this.#cap(end, middle, colour("--tape-cut"));
    }
    for (const { at, characters, caught } of this.#strokes) {
      this.#ink.fillStyle = colour(caught ? "--tape-caught" : "--tape-stroke");
      const share = Math.min(1, Math.log(1 + characters) / Math.log(1 + FULL_CHARACTERS));
      const tall = Math.max(6, share ** 2 * height);
      const wide = caught ? CAUGHT_PX : STROKE_PX;
      this.#ink.beginPath();
      this.#ink.roundRect(x(at), middle - tall / 2, wide, tall, wide / 2);
      this.#ink.fill();
    }
  }

  #rule(from, to, y, colour, dash) {
    this.#ink.strokeStyle = colour;
    this.#ink.lineWidth = 1.5;
    this.#ink.setLineDash(dash);
    this.#ink.beginPath();
    this.#ink.moveTo(from, y);
    this.#ink.lineTo(to, y);
    this.#ink.stroke();
  }

  #cap(x, y, colour) {
    this.#ink.fillStyle = colour;
    this.#ink.beginPath();
    this.#ink.arc(x, y, 3, 0, 2 * Math.PI);
    this.#ink.fill();
  }
}
