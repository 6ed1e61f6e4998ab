/** Light or dark: as the system has it, until the reader says otherwise. */

const KEY = "rejoin:theme";

/** @param {HTMLElement} button @param {() => void} changed */
export function bindTheme(button, changed) {
  const root = document.documentElement;
  const set = (theme) => { if (theme === "light" || theme === "dark") root.dataset.theme = theme; };
  try {
    set(localStorage.getItem(KEY));
  } catch {
    // No storage: as the system has it.
  }
  button.addEventListener("click", () => {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const theme = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
    set(theme);
    changed();
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // Holds until the next load.
    }
  });
}
