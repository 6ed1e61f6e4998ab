/**
 * What a log says, folded into one answer. Pure: no socket, no clock, no storage.
 *
 * @typedef {"queued"|"running"|"done"|"cancelled"|"failed"} Status
 * @typedef {{index: number, id?: string, name?: string, arguments: string}} ToolCall
 * @typedef {object} Answer
 * @property {Status} status
 * @property {string} text
 * @property {string} reasoning
 * @property {string} refusal
 * @property {ToolCall[]} toolCalls
 * @property {number} attempt
 * @property {string|null} model
 * @property {string|null} finishReason
 * @property {Record<string, any>|null} usage
 * @property {{code: string, message: string, retryable?: boolean}|null} error
 * @property {{attempt: number, reason: string, delay_ms: number}|null} retrying
 * @property {number} revision rises when the text is no longer a continuation of what it was
 */

/** A log has exactly one of these, and it is last. */
const CLOSING_EVENTS = ["done", "cancelled", "failed"];

/** Not among them: "error", the name browsers fire for a lost socket. */
export const LOG_EVENTS = ["queued", "started", "token", "reset", "reasoning", "refusal",
  "tool_call", "retrying", ...CLOSING_EVENTS];

/** @type {Answer} */
export const NOTHING = Object.freeze({
  status: "queued", text: "", reasoning: "", refusal: "", toolCalls: [], attempt: 0, model: null,
  finishReason: null, usage: null, error: null, retrying: null, revision: 0,
});

/** @param {Answer} answer */
export const isClosed = (answer) => CLOSING_EVENTS.includes(answer.status);

/** @param {Answer} answer @param {string} type @param {any} data @returns {Answer} */
export function fold(answer, type, data) {
  const next = { ...answer, retrying: null };
  // A late reader's history begins at the last `reset`, behind the `started` of its attempt.
  const running = { ...next, status: "running" };
  switch (type) {
    case "started":
      return { ...running, attempt: data.attempt, model: data.model ?? null };
    case "token": return { ...running, text: answer.text + data.text };
    case "reasoning": return { ...running, reasoning: answer.reasoning + data.text };
    case "refusal": return { ...running, refusal: answer.refusal + data.text };
    case "tool_call": return { ...running, toolCalls: withToolCall(answer.toolCalls, data) };
    case "reset":
      return { ...next, text: "", reasoning: "", refusal: "", toolCalls: [],
        revision: answer.revision + 1 };
    case "retrying": return { ...next, retrying: data };
    case "done":
      return { ...next, status: "done", finishReason: data.finish_reason ?? null,
        usage: data.usage ?? null };
    case "cancelled": return { ...next, status: "cancelled", usage: data.usage ?? null };
    case "failed": return { ...next, status: "failed", error: data, usage: data.usage ?? null };
    default: return answer;
  }
}

/** Arguments arrive in pieces, told apart by `index`. @param {ToolCall[]} calls */
function withToolCall(calls, data) {
  const known = calls.find((call) => call.index === data.index);
  if (!known) return [...calls, { ...data, arguments: data.arguments ?? "" }];
  const grown = { ...known, ...data, arguments: known.arguments + (data.arguments ?? "") };
  return calls.map((call) => (call === known ? grown : call));
}

/**
 * The answer a snapshot (`GET /v1/generations/{id}`) stands for.
 * @param {Answer} before @param {any} snapshot @returns {Answer}
 */
export function fromSnapshot(before, snapshot) {
  const text = snapshot.text ?? "";
  return {
    ...before, text, retrying: null, status: snapshot.status,
    model: snapshot.model ?? before.model,
    reasoning: snapshot.reasoning ?? "", refusal: snapshot.refusal ?? "",
    toolCalls: snapshot.tool_calls ?? [], usage: snapshot.usage ?? null,
    finishReason: snapshot.finish_reason ?? null, error: snapshot.error ?? null,
    revision: before.revision + (text.startsWith(before.text) ? 0 : 1),
  };
}
