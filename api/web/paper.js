/**
 * Text that only grows, painted as text, with its seams: where a tab came back, and which words had
 * been waiting for it. Seams carry no characters, so the element's `textContent` is the answer.
 *
 * @typedef {{at: number, waiting: number, number: number, title: string}} Seam
 *   `waiting` characters, from `at` on, arrived at once.
 */
export class Paper {
  #sheet;
  #painted = 0;
  #revision = 0;
  /** How many seams stand on the sheet already. */
  #seams = 0;
  #caughtUntil = 0;
  /** @type {{parent: Element, text: Text}|null} */ #pen = null;

  /** @param {Element} sheet */
  constructor(sheet) {
    this.#sheet = sheet;
    sheet.replaceChildren();
  }

  /** @param {string} text @param {number} revision @param {Seam[]} seams in order of `at` */
  paint(text, revision, seams) {
    if (revision !== this.#revision || text.length < this.#painted) this.#clear(revision);
    while (this.#painted < text.length) {
      let end = text.length;
      const next = seams[this.#seams];
      if (next && next.at <= this.#painted) {
        this.#stitch(next);
        continue;
      }
      if (next) end = Math.min(end, next.at);
      const caught = this.#painted < this.#caughtUntil;
      if (caught) end = Math.min(end, this.#caughtUntil);
      this.#write(text.slice(this.#painted, end), caught);
      this.#painted = end;
    }
  }

  #clear(revision) {
    this.#sheet.replaceChildren();
    this.#revision = revision;
    this.#painted = this.#seams = this.#caughtUntil = 0;
    this.#pen = null;
  }

  /** @param {Seam} seam */
  #stitch(seam) {
    this.#seams += 1;
    this.#caughtUntil = seam.at + seam.waiting;
    this.#pen = null;
    const mark = document.createElement("span");
    mark.className = "seam";
    mark.dataset.number = String(seam.number);
    mark.dataset.testid = "seam";
    mark.title = seam.title;
    mark.setAttribute("aria-hidden", "true");
    this.#sheet.append(mark);
  }

  #write(piece, caught) {
    const isCaught = this.#pen !== null && this.#pen.parent !== this.#sheet;
    if (this.#pen && isCaught === caught) {
      this.#pen.text.appendData(piece);
      return;
    }
    const text = document.createTextNode(piece);
    let parent = this.#sheet;
    if (caught) {
      parent = document.createElement("span");
      parent.className = "caught";
      this.#sheet.append(parent);
    }
    parent.append(text);
    this.#pen = { parent, text };
  }
}
