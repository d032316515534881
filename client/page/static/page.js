// The page: what the user chooses goes to the local process, and what happens to it is shown.

import { Problem, bytes, follow, get, post } from "./api.js";
import * as answer from "./answer.js";
import { Pad } from "./pad.js";
import * as plates from "./plates.js";
import * as progress from "./progress.js";

const element = (id) => document.getElementById(id);
const NEXT = {
  page_gone: "Start it again with ciphershift page, and open the address that it prints.",
  unreachable: "Start one there, or start the page without --server: it brings one of its own.",
  busy: "Others are before you; it may help to wait a moment.",
  deadline: "Take a smaller network, or ask the operator for a longer deadline.",
  unauthorized: "Set CIPHERSHIFT_API_KEY to a valid key and start the page again.",
  locked_key: "Set it and start the page again.",
};

let models = [];
let source = Promise.resolve(null); // of { blob, name, bitmap }: what the picture is made from
let preparing = null; // the promise of the picture that is made from it
let picture = null; // { pixels, done }: what will be encrypted
let pressed = null; // the file of the test image that was chosen
let running = null; // the AbortController of what is under way
let last = null; // { model, pixels, logits }: what the answer shown belongs to
let again = start; // what "Try again" does

const pad = new Pad(element("pad"), { changed: drawn, confirmed: send, tell: say });

async function start() {
  const about = await get("/api/about");
  models = about.models;
  element("server").textContent = about.embedded ? "a process of its own on this machine" : about.server;
  element("model").replaceChildren(
    ...models.map((model) => new Option(`${model.model} · ${count(model.bootstraps)} look-ups`, model.model)),
  );
  const isThere = models.some(({ model }) => model === about.chosen);
  if (isThere) element("model").value = about.chosen;
  if (models.length) await choose();
  else say("The server has no model to offer: ask its operator, or start one that has.");
  if (about.chosen && !isThere) throw new Problem("unknown_model", `The server has no model ${about.chosen}. It has those in the list.`);
}

async function choose() {
  const model = chosen();
  element("keys-folder").textContent = model.keys;
  element("keys-state").textContent = model.has_keys ? "" : "They are made at the first picture, within a few seconds.";
  element("keys-bytes").textContent = megabytes(model.key_bytes);
  element("keys-bits").textContent = Math.floor(model.security_bits);
  element("samples").hidden = !model.samples.length;
  element("sample-list").replaceChildren(...model.samples.map(sampleButton));
  press(pressed);
  pad.setDraws(model.draws);
  element("drawing-help").hidden = !model.draws;
  element("pad-hint").textContent = model.draws ? "Draw here, or drop a picture" : "Drop a picture here";
  await offer(source);
}

/** Takes away what belongs to another picture. */
function blank(model) {
  last = null;
  element("sent").hidden = element("sent-note").hidden = true;
  element("noise-hint").hidden = false;
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

/** Makes the picture that will be encrypted from a source. */
function offer(from) {
  const model = chosen();
  if (!model) return undefined; // what is wrong with the server is on the page already
  source = from;
  picture = null;
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
    say(model.draws ? "Draw a digit, or choose a picture." : "Choose a picture.");
    return;
  }
  if (given.bitmap !== undefined) pad.show(given.bitmap);
  const query = new URLSearchParams({ model: model.model, name: given.name });
  const made = await post(`/api/pictures?${query}`, given.blob);
  if (!isCurrent()) return;
  picture = made;
  plates.pixels(element("preview"), bytes(made.pixels), model.input_shape);
  element("prepared-text").textContent = `What is encrypted: ${given.name}, ${made.done}.`;
  element("prepared").hidden = false;
  say("Ready to be encrypted.");
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
  again = send;
  try {
    await preparing?.catch(() => {}); // a picture that was chosen just now
    if (picture) await attempt(encrypted(chosen(), picture.pixels, run.signal));
    else if (!run.signal.aborted) await missed();
  } finally {
    running = null;
    clearInterval(clock);
    element("elapsed").textContent = "";
    element("send").textContent = "Encrypt and send";
  }
}

function encrypted(model, pixels, signal) {
  const sent = { model: model.model, pixels };
  blank(model);
  return follow("/api/runs", JSON.stringify(sent), (event) => HAPPENED[event.event](event, model, sent), signal);
}

async function missed() {
  const isEmpty = (await source.catch(() => true)) === null;
  say(isEmpty ? "There is nothing to send yet: draw, or choose a picture." : "This picture cannot be sent: choose another.");
  element("pad").focus();
}

const HAPPENED = {
  encrypting(_, model) {
    say(model.has_keys ? "Encrypting…" : "Making keys, which takes a few seconds once, and encrypting…");
  },
  sent({ ciphertext, digest, header }, model) {
    const values = bytes(ciphertext);
    plates.ciphertext(element("noise"), values, header);
    element("noise").setAttribute("aria-label", `Noise: the ${count(values.length)} bytes of the encrypted picture`);
    element("noise-hint").hidden = true;
    element("sent-bytes").textContent = count(values.length);
    element("sent-digest").textContent = digest;
    element("sent").hidden = element("sent-note").hidden = false;
    model.has_keys = true;
    element("keys-state").textContent = "";
    say("Sent. The server has noise, and no key to it.");
    bring("theirs");
  },
  progress(event, model) {
    progress.advance(model, event.done);
    say(progress.sentence(model, event));
  },
  answer({ logits, seconds }, model, sent) {
    last = { ...sent, logits };
    progress.advance(model, model.bootstraps);
    answer.show(model.classes, logits, null);
    progress.stages(seconds);
    say(`The answer is ${model.classes[answer.largest(logits)]}, decrypted here.`);
    bring("answer");
  },
};

async function compare() {
  const { model, pixels, logits } = last;
  const plain = await post("/api/plaintext", JSON.stringify({ model, pixels })).catch((problem) => problem);
  if (last?.pixels !== pixels) return;
  if (plain instanceof Error) {
    element("compare").hidden = true;
    element("compared").textContent = `Not here: ${plain.message}`;
  } else {
    answer.show(chosen().classes, logits, plain.logits);
  }
}

/** Waits for something that may fail, and tells what is wrong and what to do about it. */
async function attempt(promise) {
  element("problem").hidden = true;
  try {
    await promise;
  } catch (problem) {
    if (problem.name === "AbortError") {
      say("Stopped; the server was told to forget it.");
      return;
    }
    element("problem-text").textContent = problem.message;
    element("problem-next").textContent = NEXT[problem.code] ?? "";
    element("problem").hidden = false;
    say("That did not work; see above.");
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

/** Where panels lie one below the other, brings the one that has news into view. */
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
