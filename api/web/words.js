/** What the playground says about a generation, in words. Pure. */

const CONNECTIONS = {
  connecting: "Connecting", live: "Live", reconnecting: "Reconnecting", cut: "Cut", paused: "Paused",
  ended: "Complete", gone: "Gone",
};

const OUTCOMES = { done: "Complete", cancelled: "Stopped", failed: "Failed" };

/** @param {import("./client.js").State} state */
export function connectionTitle({ connection, status }) {
  return (connection === "ended" && OUTCOMES[status]) || CONNECTIONS[connection];
}

/** @param {import("./client.js").State} state */
export function connectionNote({ connection, status, text, retrying }) {
  if (connection === "ended") return "Nothing more to read";
  if (connection === "cut") return "The generation goes on without this tab";
  if (connection === "paused") return "While this tab is hidden";
  if (connection !== "live") return "";
  if (retrying) return "The model did not answer, it will be asked again";
  if (status === "queued") return "Waiting for a worker";
  return text ? "" : "Waiting for the first word";
}

/** How it ended, or nothing. @param {import("./client.js").State} state */
export function outcome({ connection, status, error, usage, model, finishReason, text }) {
  if (connection === "gone") {
    return `${sentence(error.message)}${text ? " What this tab had read stays here." : ""}`;
  }
  if (status === "failed") return `Failed. ${sentence(error?.message || error?.code || "")}`.trim();
  if (status === "cancelled") return "Stopped. The text so far stands.";
  if (status !== "done") return "";
  const tokens = usage?.output_tokens ?? usage?.completion_tokens;
  const facts = [tokens && `${tokens} tokens`, model].filter(Boolean).join(", ");
  const how = ENDINGS[finishReason] ?? "Complete.";
  return facts ? `${how} ${facts}.` : how;
}

const ENDINGS = {
  length: "Ended at the limit of its length.",
  content_filter: "Ended by the provider’s content filter.",
  tool_calls: "Ended to call a tool.",
};

/** The long first half of `<epoch>-<seq>` rarely changes, so its end is enough. Does not wrap. */
export function shortId(id) {
  const [epoch, seq] = halves(id);
  const known = epoch.length > 6 ? `…${epoch.slice(-3)}` : epoch;
  return (known + seq).replace("-", "\u2011");
}

/** An id as [what changes rarely, what counts]. @param {string} id */
export function halves(id) {
  const dash = id.lastIndexOf("-");
  return dash < 0 ? ["", id] : [id.slice(0, dash), id.slice(dash)];
}

/** @param {string} words */
export const sentence = (words) => (words && !/[.!?]$/.test(words) ? `${words}.` : words);
