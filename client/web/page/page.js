// The page: makes keys, encrypts the chosen input, sends it, and shows what happens to it. Everything runs in this tab.

import {
  CanceledError, HEADER_BYTES, KeyMismatchError, LockedKeyError, UnknownModelError, WrongAnswerError, WrongPassphraseError, fit, readsDigits,
} from "ciphershift";

import * as answer from "./answer.js";
import { Fields } from "./fields.js";
import { Pad } from "./pad.js";
import { canvasOf, decoded, numbers, ofValues } from "./images.js";
import * as keys from "./keys.js";
import * as plates from "./plates.js";
import * as progress from "./progress.js";
import * as service from "./service.js";

const element = (id) => document.getElementById(id);
const IMAGES = "image/png,image/jpeg,image/webp,image/gif,image/bmp";
const NUMBERS = "text/plain,text/csv,.txt,.csv";
const NEXT = {
  unreachable: "Is a server running there, and does it allow this page's origin?",
  busy: "The queue is full; try again in a moment.",
  deadline: "Choose a smaller network, or ask the operator for a longer deadline.",
  wrong_answer: "The model was changed meanwhile; try again.",
};

let settings = null; // of page.json
let clients = []; // one for each model
let inputs = null; // what the server says of the chosen model's inputs
let source = Promise.resolve(null); // of { name, image, … }, { name, values } or { wrong }: what was drawn, opened, filled in or picked
let preparing = null; // the promise of the input that is made from it
let input = null; // what will be encrypted
let pressed = null; // the name of the example
let running = null; // the AbortController of the current run
let last = null; // { values, logits } of the answer that is shown
let again = start; // what "Try again" does
let known = null; // the promise of the model that is chosen: what it takes is not known before
let shown = null; // the client of the model that the page is ready for

const pad = new Pad(element("pad"), { changed: drawn, confirmed: send, tell: say });
const fields = new Fields(element("fields"), filled);

async function start() {
  settings = await service.settings();
  element("server").textContent = settings.name;
  element("keys-origin").textContent = location.origin;
  element("served").textContent = settings.isLocal
    ? "This page's scripts come from ciphershift on this machine."
    : `This page's scripts come from ${location.host}: whoever serves them could change them and take the keys. The command ciphershift page serves them from your own machine.`;
  for (const client of clients) client.close();
  clients = await service.connect(settings, keys.keystore);
  element("model").replaceChildren(
    ...clients.map(({ profile }) => new Option(`${profile.model} · ${count(profile.bootstraps)} look-ups`, profile.model)),
  );
  const isThere = clients.some(({ profile }) => profile.model === settings.model);
  const first = clients.find(({ profile }) => isDrawn(profile)) ?? clients[0];
  if (first) element("model").value = isThere ? settings.model : first.profile.model;
  if (clients.length) await choose();
  else say("The server has no models: ask its operator, or use another server.");
  if (settings.model && !isThere) throw new UnknownModelError(`The server has no model ${settings.model}; choose one from the list.`);
}

/** Makes the page ready for the chosen model, once: made again, the examples would be replaced under somebody's pointer. */
async function choose() {
  const client = chosen();
  if (client === shown) return;
  shown = null;
  const { profile } = client;
  const said = await service.inputsOf(client);
  if (client !== chosen()) return;
  await keys.show(profile.params);
  if (client !== chosen() || client === shown) return;
  shown = client;
  inputs = said;
  element("keys-bytes").textContent = megabytes(profile.keyBytes);
  element("keys-bits").textContent = Math.floor(profile.securityBits);
  showWidget(profile);
  showExamples(profile);
  const given = await source.catch(() => null);
  if (takesImages(profile)) await offer(given?.image ? source : Promise.resolve(null));
  else await (given?.values?.length === fields.count ? offer(source) : filled());
}

/** Shows what inputs of this model are made with: the pad, a place for files, or fields. */
function showWidget(profile) {
  const isImage = takesImages(profile);
  const draws = isDrawn(profile);
  element("drop").hidden = !isImage;
  element("fields").hidden = isImage;
  element("undo").hidden = !isImage;
  element("open").textContent = isImage ? "Open an image…" : "Open a file of numbers…";
  element("file").accept = isImage ? IMAGES : NUMBERS;
  element("skip").href = isImage ? "#pad" : "#fields";
  element("skip").textContent = draws ? "Skip to the drawing" : "Skip to the input";
  element("drawing-help").hidden = !draws;
  element("pad-hint").textContent = draws ? "Draw here, or drop an image" : "Drop an image here";
  pad.setDraws(draws);
  if (!isImage) fields.make(profile);
}

function showExamples(profile) {
  element("examples").hidden = !inputs.examples.length;
  element("example-list").className = takesImages(profile) ? "samples" : "chips";
  element("example-list").replaceChildren(...inputs.examples.map((example) => exampleButton(example, profile)));
  press(pressed);
}

function exampleButton(example, profile) {
  const button = document.createElement("button");
  const label = [example.name.replace(/^./, (letter) => letter.toUpperCase()), example.label].filter(Boolean).join(": ");
  button.type = "button";
  button.dataset.name = example.name;
  if (takesImages(profile)) {
    button.setAttribute("aria-label", label);
    button.append(canvasOf(ofValues(example.values, profile.sampleShape)));
  } else {
    button.textContent = label;
  }
  button.addEventListener("click", () => {
    press(example.name);
    if (!takesImages(profile)) {
      fields.show(example.values);
      offer(Promise.resolve({ name: example.name, values: example.values }));
      return;
    }
    const image = ofValues(example.values, profile.sampleShape);
    offer(Promise.resolve({ name: example.name, image, shown: canvasOf(image) }));
  });
  return button;
}

/** Clears what belongs to the previous input. */
function blank(profile) {
  last = null;
  element("sent").hidden = element("sent-note").hidden = true;
  element("noise-hint").hidden = false;
  element("jump").hidden = true;
  element("noise").width = element("noise").height = 1;
  element("noise").setAttribute("aria-label", "Nothing has been sent yet");
  answer.blank(profile.classes);
  progress.blank(profile);
}

function drawn() {
  press(null);
  return offer(Promise.resolve(pad.isEmpty ? null : { name: "the drawing", image: pad.pixels() }));
}

function filled() {
  press(null);
  return offer(Promise.resolve(fields.isEmpty ? null : whatIsInTheFields()));
}

/** The values, or what is wrong with them: somebody is still typing, so that is no failure yet. */
function whatIsInTheFields() {
  try {
    const values = fields.values();
    service.bytesOf(chosen().profile, values); // within the range of each
    return { name: "what is in the fields", values };
  } catch (error) {
    return { wrong: error.message };
  }
}

async function opened([file]) {
  if (!file) return;
  element("file").value = ""; // the same file can be chosen again
  await known;
  if (!chosen()) return; // the problem with the server is already shown
  press(null);
  if (takesImages(chosen().profile)) offer(decoded(file));
  else attempt(numbers(file).then((text) => fields.read(text)));
}

/** Prepares the input that will be encrypted. */
function offer(from) {
  const client = chosen();
  if (!client) return undefined; // the problem with the server is already shown
  source = from;
  input = null;
  running?.abort();
  blank(client.profile);
  preparing = prepare(from, client);
  again = () => offer(from);
  return attempt(preparing);
}

async function prepare(from, client) {
  const { profile } = client;
  const isCurrent = () => from === source && client === chosen();
  const given = await from;
  if (!isCurrent()) return;
  element("prepared").hidden = true;
  element("pad-hint").hidden = given !== null;
  if (given?.wrong) {
    say(`${given.wrong}.`);
    return;
  }
  if (given === null) {
    if (takesImages(profile) && !pad.isEmpty) pad.show(null);
    say(instruction());
    return;
  }
  if (given.shown) pad.show(given.shown);
  const [values, done] = given.image ? fitted(given, profile) : [given.values, "as it is"];
  input = values;
  plates.values(element("preview"), service.bytesOf(profile, values, true), profile.sampleShape);
  element("prepared-text").textContent = profile.stem
    ? `What is given to the network's public part, in this browser: ${given.name}, ${done}. What that makes of it is encrypted.`
    : `What is encrypted: ${given.name}, ${done}.`;
  element("prepared").hidden = false;
  say("Ready to encrypt.");
}

function fitted({ image, size }, profile) {
  const { pixels, steps } = fit(image, profile, inputs.images ?? undefined);
  const [width, height] = size ?? [image.width, image.height];
  const [, rows, columns] = profile.sampleShape;
  const done = steps.map((step) => (step === "resized" ? `${width}×${height}, now ${columns}×${rows}` : step));
  return [pixels, done.join(", ") || "as it is"];
}

function instruction() {
  if (!element("fields").hidden) return "Fill in the fields, or choose an example.";
  return pad.draws ? "Draw a digit, or choose an image." : "Choose an image.";
}

async function send() {
  if (running) return;
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
    await known;
    await preparing?.catch(() => {}); // an input that was chosen just now
    if (!chosen()) return; // the problem with the server is already shown
    if (input) await attempt(predicted(chosen(), input, run.signal));
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

async function predicted(client, values, signal) {
  const { profile } = client;
  blank(profile);
  say("Encrypting…");
  let isShown = false;
  const onProgress = ({ stage, share, sent, total, status }) => {
    if (signal.aborted) return;
    if (stage === "keys") say(`Making keys, once: ${percent(share)}`);
    else if (stage === "upload") say(`Sending evaluation keys, once: ${megabytes(sent)} of ${megabytes(total)}`);
    else {
      if (!isShown) showCiphertext(client.traffic.ciphertexts[0]);
      isShown = true;
      progress.advance(profile, status.progress.bootstrapsDone, status.state !== "pending");
      say(progress.sentence(profile, status));
    }
  };
  const logits = answer.flat(profile, await client.predict(values, { signal, onProgress }));
  await keys.show(profile.params);
  last = { values, logits };
  const best = answer.verdict(profile, logits);
  progress.advance(profile, profile.bootstraps);
  answer.show(profile, logits, null);
  element("compare").hidden = !settings.clear;
  progress.stages(client.timings);
  element("jump").textContent = `Answer: ${best}`;
  element("jump").hidden = false;
  say(`The answer is ${best}, decrypted in this browser.`);
  bring("answer");
}

async function showCiphertext(bytes) {
  plates.ciphertext(element("noise"), bytes, HEADER_BYTES);
  element("noise").setAttribute("aria-label", `The ${count(bytes.length)} bytes of the encrypted input, which look random`);
  element("noise-hint").hidden = true;
  element("sent-bytes").textContent = count(bytes.length);
  element("sent").hidden = element("sent-note").hidden = false;
  say("Sent. The server has the ciphertext and no key for it.");
  bring("theirs");
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  element("sent-digest").textContent = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function missed() {
  const given = await source.catch(() => true);
  if (given?.wrong) say(`Not sent: ${given.wrong}.`);
  else say(given === null ? "Nothing to send yet: make or choose an input." : "This input cannot be sent: choose another.");
  (element("fields").hidden ? element("pad") : fields.inputs()[0]).focus();
}

async function compare() {
  const { values, logits } = last;
  const { profile } = chosen();
  const plain = await service.inTheClear(settings, profile, values).catch((problem) => problem);
  if (last?.values !== values) return;
  if (plain instanceof Error) {
    element("compare").hidden = true;
    element("compared").textContent = `Not available: ${plain.message}`;
  } else {
    answer.show(profile, logits, plain);
  }
}

async function forget() {
  running?.abort();
  const { profile } = chosen();
  await keys.forget(profile.params);
  await start();
  element("keys-state").textContent = "They are forgotten; new ones are made with the next input.";
}

async function seal() {
  if (await keys.seal(chosen().profile.params)) await keys.show(chosen().profile.params);
}

async function takeIn() {
  const files = [...element("key-files").files];
  element("key-files").value = "";
  await keys.takeIn(chosen().profile.params, files);
  await start();
  element("keys-state").textContent = `They were taken in from your files. ${element("keys-state").textContent}`;
}

/** Waits for a promise; if it fails, shows the error and what to do about it. */
async function attempt(promise) {
  element("problem").hidden = true;
  try {
    await promise;
  } catch (problem) {
    if (problem instanceof CanceledError) {
      say("Stopped. The job on the server was canceled.");
      return;
    }
    if (problem instanceof LockedKeyError) {
      say("Not done: the keys stay closed without their passphrase.");
      return;
    }
    if (problem instanceof WrongPassphraseError) keys.forgetPassphrase();
    else if (problem instanceof KeyMismatchError || problem instanceof WrongAnswerError) again = start; // keys or model were changed
    element("problem-text").textContent = problem.message;
    element("problem-next").textContent = NEXT[problem.code] ?? "";
    element("api-key-form").hidden = !service.wantsApiKey(problem);
    element("problem").hidden = false;
    say("Failed; see the message above.");
  }
}

function press(name) {
  pressed = name;
  for (const button of element("example-list").children) button.setAttribute("aria-pressed", String(button.dataset.name === name));
}

function chosen() {
  return clients.find(({ profile }) => profile.model === element("model").value);
}

function isDrawn(profile) {
  return takesImages(profile) && profile.sampleShape[0] === 1 && readsDigits(profile);
}

function takesImages({ sampleShape }) {
  return sampleShape.length === 3 && (sampleShape[0] === 1 || sampleShape[0] === 3);
}

/** On narrow screens, scrolls to the panel with news. */
function bring(id) {
  if (matchMedia("(max-width: 40rem)").matches) element(id).scrollIntoView({ behavior: "smooth" });
}

function say(text) {
  if (element("status").textContent !== text) element("status").textContent = text;
}

function count(number) {
  return number.toLocaleString("en").replaceAll(",", "\u202f");
}

function megabytes(number) {
  return `${(number / 1e6).toFixed(1)} MB`;
}

function percent(share) {
  return `${Math.round(100 * share)} %`;
}

element("model").addEventListener("change", () => (known = attempt(choose())));
element("undo").addEventListener("click", () => pad.undo());
element("clear").addEventListener("click", () => (element("fields").hidden ? pad : fields).clear());
element("open").addEventListener("click", () => element("file").click());
element("file").addEventListener("change", () => opened(element("file").files));
element("send").addEventListener("click", () => (running ? running.abort() : send()));
element("compare").addEventListener("click", compare);
element("forget").addEventListener("click", () => attempt(forget()));
element("seal").addEventListener("click", () => attempt(seal()));
element("export").addEventListener("click", () => attempt(keys.offerFiles(chosen().profile.params)));
element("import").addEventListener("click", () => element("key-files").click());
element("key-files").addEventListener("change", () => attempt(takeIn()));
element("problem-again").addEventListener("click", () => attempt(again()));
element("api-key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  service.setApiKey(element("api-key").value);
  element("api-key").value = "";
  known = attempt(start());
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  element("drop").addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") opened(event.dataTransfer.files);
  });
}
known = attempt(start());
