/**
 * How far a tab had read a generation, and what it had read by then. Both are stored as one string,
 * so whatever bookmark is found, even an old one, its text ends exactly where its cursor points.
 *
 * @typedef {object} Bookmark
 * @property {import("./answer.js").Answer} answer
 * @property {string} cursor
 * @property {number} events
 * @property {number} resumes
 */

/** The number is the version of the stored shape. */
const PREFIX = "rejoin:1:";

/** @param {Storage|null} storage @param {string} id @returns {Bookmark|null} */
export function findBookmark(storage, id) {
  try {
    return JSON.parse(storage?.getItem(PREFIX + id) ?? "null");
  } catch {
    return null; // unreadable: as if there were none
  }
}

/** @param {Storage|null} storage @param {string} id @param {Bookmark} bookmark */
export function keepBookmark(storage, id, bookmark) {
  try {
    storage?.setItem(PREFIX + id, JSON.stringify(bookmark));
  } catch {
    // Full. None is as right as any: a reload then reads from the beginning.
    for (const key of Object.keys(storage)) if (key.startsWith(PREFIX)) storage.removeItem(key);
  }
}

/** Reading the property alone throws where the user forbids storage. @returns {Storage|null} */
export function tabStorage() {
  try {
    return window.sessionStorage;
  } catch {
    return null;
  }
}
