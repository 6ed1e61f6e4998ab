/** The playground: one question, one answer, and several ways to lose the connection to it. */

import { tabStorage } from "./bookmark.js";
import { Generation, drawKey } from "./client.js";
import { Paper } from "./paper.js";
import { paintLine, paintMoments, paintRecents, setText } from "./rail.js";
import { recents, remember } from "./recents.js";
import { Story } from "./story.js";
import { Tape } from "./tape.js";
import { bindTheme } from "./theme.js";
import { outcome, sentence } from "./words.js";

const CUT_MS = 3_000;
const TICK_MS = 100;
/** Pixels are rounded, and a line is tall: this near to the end is at the end. */
const END_SLACK_PX = 24;
/** A question on its way, with its key: a reload asks again without paying again. */
const PENDING_KEY = "rejoin:pending:1";

const $ = (id) => document.getElementById(id);
const root = $("playground");
const prompt = /** @type {HTMLTextAreaElement} */ ($("prompt"));
const storage = tabStorage();
const tape = new Tape($("tape"));

/**
 * What is on the page: the question, and once it is accepted its generation; `growing` once it was
 * painted while more was to come, so that a finished answer is shown from its beginning.
 * @type {{question: string, generation: Generation|null, story: Story|null, paper: Paper,
 *   growing: boolean}}
 */
let scene = { question: "", generation: null, story: null, paper: new Paper($("answer")),
  growing: false };
/** Rises with every scene, so that a late answer to an earlier question does not take the stage. */
let scenes = 0;
let painting = 0;
let backAt = 0;

/* Scenes */

function setScene(phase, question, generation = null, { joined = false } = {}) {
  scene.story?.close();
  scene.generation?.disconnect();
  scenes += 1;
  backAt = 0;
  tape.clear();
  const story = generation && new Story(generation, { storage, joined });
  scene = { question, generation, story, paper: new Paper($("answer")), growing: false };
  if (scenes > 1) window.scrollTo({ top: 0, behavior: "instant" });
  root.dataset.phase = phase;
  $("question").textContent = question;
  $("moments").replaceChildren();
  $("notice").textContent = "";
  if (generation) watch(generation);
  paint();
  paintRecents(generation?.id);
}

function watch(generation) {
  let caught = false;
  generation.addEventListener("change", () => {
    if (generation.state.connection !== "cut") backAt = 0;
    paintSoon();
  });
  generation.addEventListener("resumed", () => { caught = true; });
  generation.addEventListener("event", ({ detail: { type, data } }) => {
    tape.stroke(data.text?.length ?? 0, caught);
    if (type === "token") caught = false;
  });
}

/** @param {string} question */
async function ask(question, key = drawKey()) {
  store({ question, key });
  setScene("sending", question);
  const mine = scenes;
  try {
    const generation = await Generation.create({ prompt: question }, {
      key,
      onretry: ({ delayMs, problem }) => {
        if (mine !== scenes) return;
        const wait = Math.ceil(delayMs / 1000);
        $("notice").textContent = `${sentence(problem.message)} Asking again in ${wait} s.`;
      },
    });
    settle(key);
    remember(generation.id, question);
    if (mine === scenes) {
      setScene("following", question, generation);
      location.hash = generation.id;
    } else { // the reader has turned to something else; this one goes on without a reader
      generation.disconnect();
      paintRecents(scene.generation?.id);
    }
  } catch (problem) {
    settle(key);
    if (mine !== scenes) return;
    setScene("idle", "");
    prompt.value ||= question;
    $("notice").textContent = sentence(problem.message);
    prompt.focus();
  }
}

/** Show what the address names. */
function follow() {
  const id = location.hash.slice(1);
  if (id === (scene.generation?.id ?? "") && root.dataset.phase !== "sending") return;
  if (!id) {
    setScene("idle", "");
    prompt.focus();
    return;
  }
  const known = recents().find((recent) => recent.id === id);
  setScene("following", known?.prompt ?? "", Generation.resume(id), { joined: true });
}

/** @param {{question: string, key: string}} pending */
function store(pending) {
  try {
    storage?.setItem(PENDING_KEY, JSON.stringify(pending));
  } catch {
    // Full: a reload before the answer to the POST forgets the question.
  }
}

/** @param {string} key */
function settle(key) {
  if (pendingQuestion()?.key === key) storage?.removeItem(PENDING_KEY);
}

function pendingQuestion() {
  try {
    return JSON.parse(storage?.getItem(PENDING_KEY) ?? "null");
  } catch {
    return null;
  }
}

/* Painting */

function paintSoon() {
  painting ||= requestAnimationFrame(() => {
    painting = 0;
    paint();
  });
}

function paint() {
  const state = scene.generation?.state;
  root.dataset.connection = state?.connection ?? "";
  root.dataset.status = state?.status ?? "";
  document.title = scene.question ? `${scene.question.slice(0, 60)} · Rejoin` : "Rejoin";
  const over = !state || ["ended", "gone"].includes(state.connection);
  tape.connected(state?.connection === "live");
  if (over) tape.stop();
  else tape.run();
  $("answer").setAttribute("aria-busy", String(!over));
  $("stop").hidden = over;
  $("cut").disabled = over;
  if (!state) {
    $("connection").textContent = root.dataset.phase === "sending" ? "Asking" : "";
    for (const id of ["connection-note", "last-event-id"]) $(id).textContent = "";
    for (const id of ["reasoning", "tool-calls", "outcome", "again"]) $(id).hidden = true;
    return;
  }
  keepEndInView(() => {
    scene.paper.paint(state.text, state.revision, scene.story.seams);
    paintAsides(state);
  });
  $("again").hidden = !scene.question || !(state.connection === "gone" || state.status === "failed");
  paintLine(state, backAt);
  paintMoments(scene.story.moments);
}

function paintAsides(state) {
  $("reasoning").hidden = !state.reasoning;
  setText($("reasoning").querySelector("p"), state.reasoning);
  $("tool-calls").hidden = state.toolCalls.length === 0;
  setText($("tool-calls"), state.toolCalls.map((call) => `${call.name}(${call.arguments})`).join("\n"));
  const ending = [state.refusal, outcome(state)].filter(Boolean).join("\n");
  $("outcome").hidden = !ending;
  setText($("outcome"), ending);
}

/** A reader who looks at the end goes on looking at it; one who scrolled away stays there. */
function keepEndInView(change) {
  const overhang = () => $("exchange").getBoundingClientRect().bottom -
    $("composer").getBoundingClientRect().top;
  const sawEnd = overhang() < END_SLACK_PX;
  change();
  const hidden = overhang();
  if (sawEnd && hidden > 0 && scene.growing) window.scrollBy({ top: hidden, behavior: "instant" });
  scene.growing ||= scene.generation.state.connection !== "ended";
}

/* What people do */

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = prompt.value.trim();
  if (!question) return prompt.focus();
  prompt.value = "";
  ask(question);
});

prompt.addEventListener("keydown", (event) => {
  // While an input method composes, Enter belongs to it.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});

$("welcome").addEventListener("click", ({ target }) => {
  if (target instanceof HTMLButtonElement) ask(target.textContent);
});

$("again").addEventListener("click", () => ask(scene.question));

$("stop").addEventListener("click", async () => {
  try {
    await scene.generation?.cancel();
  } catch (problem) {
    $("notice").textContent = `Not stopped: ${sentence(problem.message)}`;
  }
});

$("cut").addEventListener("click", () => {
  const { generation } = scene;
  if (!generation) return;
  if (generation.state.connection === "cut") return generation.reconnect();
  generation.disconnect();
  backAt = Date.now() + CUT_MS;
  comeBack(generation);
});

function comeBack(generation) {
  if (!backAt || scene.generation !== generation) return;
  if (Date.now() >= backAt) {
    backAt = 0;
    generation.reconnect();
    return;
  }
  paintSoon();
  setTimeout(() => comeBack(generation), TICK_MS);
}

$("reload").addEventListener("click", () => location.reload());
window.addEventListener("hashchange", follow);
bindTheme($("theme"), () => tape.redraw());

const pending = pendingQuestion();
if (pending) ask(pending.question, pending.key);
else if (location.hash.length > 1) follow();
else setScene("idle", "");
