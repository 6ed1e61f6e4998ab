/** What was asked in this browser, newest first: the service keeps no list of its own. */

const KEY = "rejoin:recents:1";
const LIMIT = 6;
const TITLE_LENGTH = 200;

/** @returns {{id: string, prompt: string}[]} */
export function recents() {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "[]");
  } catch {
    return [];
  }
}

/** @param {string} id @param {string} prompt */
export function remember(id, prompt) {
  const others = recents().filter((recent) => recent.id !== id);
  const list = [{ id, prompt: prompt.slice(0, TITLE_LENGTH) }, ...others].slice(0, LIMIT);
  try {
    localStorage.setItem(KEY, JSON.stringify(list));
  } catch {
    // No storage, no list.
  }
}
