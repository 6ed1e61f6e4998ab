// `resumable-stream` from npm with our load: `node stream.mjs produce` and `node stream.mjs serve`.
//
// As its documentation has it: what makes a stream holds it in memory and publishes it to whoever
// asks by Redis; another process resumes it. Every client here is one that resumes, since the
// first reader of a stream is served by its producer itself. Each pushes server-sent events.
import { createServer } from "node:http";
import process from "node:process";
import { setTimeout } from "node:timers/promises";
import { createClient } from "redis";
import { createResumableStreamContext } from "resumable-stream";

const { REDIS_URL, PORT, STREAMS, PACE, FIRST, LAST } = process.env;
const WARN_NEVER = 0;

async function openContext() {
  const [publisher, subscriber] = [0, 0].map(() => createClient({ url: REDIS_URL }));
  for (const client of [publisher, subscriber]) {
    client.setMaxListeners(WARN_NEVER);
    client.on("error", (error) => console.error(String(error)));
    await client.connect();
  }
  return createResumableStreamContext({ waitUntil: null, publisher, subscriber });
}

const nowMicros = () => Number(process.hrtime.bigint() / 1000n); // CLOCK_MONOTONIC
const say = (event) => console.log(JSON.stringify(event).replaceAll('":', '": '));

// --- the producer: the same tokens at the same pace as writer.c -----------------------------------

const NUMBER_SIZE = 8; // digits, so that characters can be counted by tokens

function token(now, number) {
  const text = `@${now}:${String(number).padStart(NUMBER_SIZE, "0")};`;
  return `event: token\ndata: ${JSON.stringify({ text })}\n\n`;
}

async function produce() {
  const context = await openContext();
  const count = Number(STREAMS);
  const controllers = [];
  for (let number = 0; number < count; number++) {
    const make = () => new ReadableStream({ start: (controller) => controllers.push(controller) });
    const stream = await context.createNewResumableStream(`s${number}`, make);
    await stream.cancel(); // its first reader leaves; the library reads on for those who resume
  }
  const [first, last, pace] = [FIRST, LAST, PACE].map(Number);
  for (let number = 1; number < first; number++) {
    const now = nowMicros();
    for (const controller of controllers) controller.enqueue(token(now, number));
  }
  while (controllers.some((controller) => controller.desiredSize < 1)) await setTimeout(1);
  process.once("SIGUSR1", () => write(controllers, first, last, pace));
  say({ event: "made", token_size: token(nowMicros(), 1).length });
}

function write(controllers, first, last, pace) {
  const count = controllers.length;
  const total = count * (last - first + 1);
  const everyMicros = 1e6 / (pace * count);
  const began = nowMicros();
  let [sent, latest] = [0, 0];
  say({ event: "begun", at: began });
  const timer = setInterval(() => {
    const now = nowMicros();
    for (; sent < total && began + sent * everyMicros <= now; sent++) {
      latest = Math.max(latest, now - (began + sent * everyMicros));
      controllers[sent % count].enqueue(token(now, first + Math.floor(sent / count)));
    }
    if (sent === total) {
      clearInterval(timer);
      const late = { max: latest };
      say({ event: "ended", appended: total, errors: 0, began_at: began, ended_at: now, late });
    }
  }, 1);
}

// --- the server: GET /s<number>, the cursor is the number of characters --------------------------

async function serve() {
  const context = await openContext();
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://localhost");
    if (url.pathname === "/healthz") return response.end("{}");
    let stream;
    try {
      const skip = Number(request.headers["last-event-id"] ?? 0);
      stream = await context.resumeExistingStream(url.pathname.slice(1), skip);
    } catch (error) {
      console.error(String(error));
    }
    if (!stream) return response.writeHead(503).end();
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.flushHeaders();
    const reader = stream.getReader();
    response.on("close", () => reader.cancel());
    for (let read; !(read = await reader.read()).done; ) response.write(read.value);
    response.end();
  });
  server.listen({ port: Number(PORT), host: "127.0.0.1", backlog: 4096 });
}

await (process.argv[2] === "produce" ? produce() : serve());
