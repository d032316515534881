// The page: sends the chosen image to the local process, and shows what happens to it.

import { Problem, bytes, follow, get, post } from "./api.js";
import * as answer from "./answer.js";
import { Pad } from "./pad.js";
import * as plates from "./plates.js";
import * as progress from "./progress.js";

const element = (id) => document.getElementById(id);
const NEXT = {
  page_gone: "Run ciphershift page again, and open the address that it prints.",
  unreachable: "Start a server there, or start the page without --server: it then starts its own.",
  busy: "The queue is full; try again in a moment.",
  deadline: "Choose a smaller network, or ask the operator for a longer deadline.",
  unauthorized: "Set CIPHERSHIFT_API_KEY to a valid key and start the page again.",
  locked_key: "Then start the page again.",
};

let models = [];
let source = Promise.resolve(null); // of { blob, name, bitmap }: the chosen file or drawing
let preparing = null; // the promise of the image made from it
let image = null; // { pixels, done }: what will be encrypted
let pressed = null; // the file of the chosen test image
let running = null; // the AbortController of the current run
let last = null; // { model, pixels, logits } of the answer that is shown
let again = start; // what "Try again" does

const pad = new Pad(element("pad"), { changed: drawn, confirmed: send, tell: say });

async function start() {
  const about = await get("/api/about");
  models = about.models;
  element("server").textContent = about.embedded ? "a separate process on this machine" : about.server;
  element("model").replaceChildren(
    ...models.map((model) => new Option(`${model.model} · ${count(model.bootstraps)} look-ups`, model.model)),
  );
  const isThere = models.some(({ model }) => model === about.chosen);
  if (isThere) element("model").value = about.chosen;
  if (models.length) await choose();
  else say("The server has no models: ask its operator, or use another server.");
  if (about.chosen && !isThere) throw new Problem("unknown_model", `The server has no model ${about.chosen}; choose one from the list.`);
}

async function choose() {
  const model = chosen();
  element("keys-folder").textContent = model.keys;
  element("keys-state").textContent = model.has_keys ? "" : "They are made with the first image, in a few seconds.";
  element("keys-bytes").textContent = megabytes(model.key_bytes);
  element("keys-bits").textContent = Math.floor(model.security_bits);
  element("samples").hidden = !model.samples.length;
  element("sample-list").replaceChildren(...model.samples.map(sampleButton));
  press(pressed);
  pad.setDraws(model.draws);
  element("drawing-help").hidden = !model.draws;
  element("pad-hint").textContent = model.draws ? "Draw here, or drop an image" : "Drop an image here";
  await offer(source);
}

/** Clears what belongs to the previous image. */
function blank(model) {
  last = null;
  element("sent").hidden = element("sent-note").hidden = true;
  element("noise-hint").hidden = false;
  element("jump").hidden = true;
  element("noise").width = element("noise").height = 1;
  element("noise").setAttribute("aria-label", "Nothing has been sent yet");
  answer.blank(model.classes);
  progress.blank(model);
}

function drawn() {
  press(null);
  return offer(pad.isEmpty ? Promise.resolve(null) : pad.blob().then((blob) => ({ blob, name: "the drawing" })));
}

async function take(blob, name) {
  return { blob, name, bitmap: await createImageBitmap(blob).catch(() => null) };
}

/** Prepares the image that will be encrypted. */
function offer(from) {
  const model = chosen();
  if (!model) return undefined; // the problem with the server is already shown
  source = from;
  image = null;
  running?.abort();
  blank(model);
  preparing = prepare(from, model);
  again = () => offer(from);
  return attempt(preparing);
}

async function prepare(from, model) {
  const isCurrent = () => from === source && model === chosen();
  const given = await from;
  if (!isCurrent()) return;
  element("prepared").hidden = true;
  element("pad-hint").hidden = given !== null;
  if (given === null) {
    say(model.draws ? "Draw a digit, or choose an image." : "Choose an image.");
    return;
  }
  if (given.bitmap !== undefined) pad.show(given.bitmap);
  const query = new URLSearchParams({ model: model.model, name: given.name });
  const made = await post(`/api/images?${query}`, given.blob);
  if (!isCurrent()) return;
  image = made;
  plates.pixels(element("preview"), bytes(made.pixels), model.input_shape);
  element("prepared-text").textContent = `What is encrypted: ${given.name}, ${made.done}.`;
  element("prepared").hidden = false;
  say("Ready to encrypt.");
}

async function send() {
  if (running || !chosen()) return;
  const run = new AbortController();
  running = run;
  const started = performance.now();
  const clock = setInterval(() => {
    element("elapsed").textContent = `${Math.round((performance.now() - started) / 1000)} s`;
  }, 1000);
  element("send").textContent = "Stop";
  element("send").classList.replace("primary", "stop");
  again = send;
  try {
    await preparing?.catch(() => {}); // an image that was chosen just now
    if (image) await attempt(encrypted(chosen(), image.pixels, run.signal));
    else if (!run.signal.aborted) await missed();
  } finally {
    running = null;
    clearInterval(clock);
    element("elapsed").textContent = "";
    element("send").textContent = "Encrypt and send";
    element("send").classList.replace("stop", "primary");
    progress.rest();
  }
}

function encrypted(model, pixels, signal) {
  const sent = { model: model.model, pixels };
  blank(model);
  return follow("/api/runs", JSON.stringify(sent), (event) => HAPPENED[event.event](event, model, sent), signal);
}

async function missed() {
  const isEmpty = (await source.catch(() => true)) === null;
  say(isEmpty ? "Nothing to send yet: draw, or choose an image." : "This image cannot be sent: choose another.");
  element("pad").focus();
}

const HAPPENED = {
  encrypting(_, model) {
    say(model.has_keys ? "Encrypting…" : "Making keys (once, a few seconds) and encrypting…");
  },
  sent({ ciphertext, digest, header }, model) {
    const values = bytes(ciphertext);
    plates.ciphertext(element("noise"), values, header);
    element("noise").setAttribute("aria-label", `The ${count(values.length)} bytes of the encrypted image, which look random`);
    element("noise-hint").hidden = true;
    element("sent-bytes").textContent = count(values.length);
    element("sent-digest").textContent = digest;
    element("sent").hidden = element("sent-note").hidden = false;
    model.has_keys = true;
    element("keys-state").textContent = "";
    say("Sent. The server has the ciphertext and no key for it.");
    bring("theirs");
  },
  progress(event, model) {
    progress.advance(model, event.done, event.ahead === null);
    say(progress.sentence(model, event));
  },
  answer({ logits, seconds }, model, sent) {
    last = { ...sent, logits };
    progress.advance(model, model.bootstraps);
    answer.show(model.classes, logits, null);
    progress.stages(seconds);
    element("jump").textContent = `Answer: ${model.classes[answer.largest(logits)]}`;
    element("jump").hidden = false;
    say(`The answer is ${model.classes[answer.largest(logits)]}, decrypted on this machine.`);
    bring("answer");
  },
};

async function compare() {
  const { model, pixels, logits } = last;
  const plain = await post("/api/plaintext", JSON.stringify({ model, pixels })).catch((problem) => problem);
  if (last?.pixels !== pixels) return;
  if (plain instanceof Error) {
    element("compare").hidden = true;
    element("compared").textContent = `Not available: ${plain.message}`;
  } else {
    answer.show(chosen().classes, logits, plain.logits);
  }
}

/** Waits for a promise; if it fails, shows the error and what to do about it. */
async function attempt(promise) {
  element("problem").hidden = true;
  try {
    await promise;
  } catch (problem) {
    if (problem.name === "AbortError") {
      say("Stopped. The job on the server was canceled.");
      return;
    }
    element("problem-text").textContent = problem.message;
    element("problem-next").textContent = NEXT[problem.code] ?? "";
    element("problem").hidden = false;
    say("Failed; see the message above.");
  }
}

function sampleButton(sample) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.file = sample.file;
  button.setAttribute("aria-label", `Test image ${sample.index}: ${sample.label}`);
  const image = document.createElement("img");
  image.src = `/samples/${sample.file}`;
  image.alt = "";
  button.append(image);
  button.addEventListener("click", () => {
    press(sample.file);
    offer(fetch(image.src).then(async (answer) => take(await answer.blob(), `test image ${sample.index}`)));
  });
  return button;
}

function press(file) {
  pressed = file;
  for (const button of element("sample-list").children) button.setAttribute("aria-pressed", String(button.dataset.file === file));
}

function opened(files) {
  if (!files.length) return;
  press(null);
  offer(take(files[0], files[0].name));
}

function chosen() {
  return models.find(({ model }) => model === element("model").value);
}

/** On narrow screens, scrolls to the panel with news. */
function bring(id) {
  if (matchMedia("(max-width: 40rem)").matches) element(id).scrollIntoView({ behavior: "smooth" });
}

function say(text) {
  element("status").textContent = text;
}

function count(number) {
  return number.toLocaleString("en").replaceAll(",", "\u202f");
}

function megabytes(number) {
  return `${(number / 1e6).toFixed(1)} MB`;
}

element("model").addEventListener("change", choose);
element("undo").addEventListener("click", () => pad.undo());
element("clear").addEventListener("click", () => pad.clear());
element("open").addEventListener("click", () => element("file").click());
element("file").addEventListener("change", () => opened(element("file").files));
element("send").addEventListener("click", () => (running ? running.abort() : send()));
element("compare").addEventListener("click", compare);
element("problem-again").addEventListener("click", () => attempt(again()));
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  element("drop").addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") opened(event.dataTransfer.files);
  });
}
attempt(start());
