/** What stands beside the answer: the line, what happened to it, and what was asked before. */

import { recents } from "./recents.js";
import { connectionNote, connectionTitle, halves } from "./words.js";

const $ = (id) => document.getElementById(id);

/** @param {import("./client.js").State} state @param {number} backAt when a cut ends, or 0 */
export function paintLine(state, backAt) {
  setText($("connection"), connectionTitle(state));
  setText($("connection-note"), connectionNote(state));
  setText($("cut"), cutLabel(state, backAt));
  paintId(state.lastEventId);
  setText($("events"), String(state.events));
  setText($("resumes"), String(state.resumes));
  setText($("attempt"), state.attempt ? String(state.attempt) : "–");
  $("second-tab").href = `#${state.id}`;
}

function cutLabel({ connection }, backAt) {
  if (backAt) return `Back in ${Math.ceil((backAt - Date.now()) / 1000)} s`;
  return connection === "cut" ? "Come back" : "Cut the line";
}

function paintId(id) {
  const at = $("last-event-id");
  if (at.textContent === (id ?? "–")) return;
  const [epoch, seq] = id ? halves(id) : ["", "–"];
  const faint = document.createElement("span");
  faint.textContent = epoch;
  at.replaceChildren(faint, seq);
}

/** Newest first. @param {import("./story.js").Moment[]} moments they only grow */
export function paintMoments(moments) {
  const list = $("moments");
  const fresh = moments.slice(list.children.length);
  for (const moment of fresh) list.prepend(momentItem(moment));
  if (fresh.length > 0) setText($("announcer"), fresh.at(-1).title);
  moments.toReversed().forEach((moment, index) => {
    setText(list.children[index].querySelector(".note"), moment.note);
  });
}

/** @param {import("./story.js").Moment} moment */
function momentItem({ kind, at, title, number }) {
  const item = document.createElement("li");
  item.dataset.kind = kind;
  item.dataset.testid = "moment";
  const part = (name, className, text) => {
    const element = document.createElement(name);
    element.className = className;
    element.textContent = text;
    item.append(element);
  };
  part("span", "badge", number === null ? "" : String(number));
  part("span", "title", title);
  part("time", "clock", new Date(at).toLocaleTimeString([], { hour12: false }));
  part("span", "note", "");
  return item;
}

/** @param {string|undefined} shown the generation on the page */
export function paintRecents(shown) {
  const others = recents().filter((recent) => recent.id !== shown);
  $("recents").hidden = others.length === 0;
  $("recent-list").replaceChildren(...others.map(({ id, prompt }) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = `#${id}`;
    link.textContent = prompt;
    item.append(link);
    return item;
  }));
}

/** Untouched text is not read out again. @param {Element} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
