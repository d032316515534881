// The keys at rest: under a passphrase if one is wanted, as files to take along, taken in from files, and forgotten.

import { BadShapeError, BrowserStore, Keystore } from "ciphershift";

const element = (id) => document.getElementById(id);
let passphrase; // as long as the tab is open
let links = [];

/** The tab's keys. A passphrase is asked for when keys turn out to be under one. */
export const keystore = new Keystore(new BrowserStore(), {
  get passphrase() {
    return passphrase;
  },
  async ask() {
    passphrase = await asked({ title: "The keys are under a passphrase", note: "It opens them until this tab is closed.", done: "Open" });
    element("status").textContent = "Opening the keys, which takes some seconds.";
    return passphrase;
  },
});

/** Shows where the keys of a parameter set are, and what can be done with them. */
export async function show(params) {
  const [areThere, isSealed] = [await keystore.has(params), await keystore.isSealed(params)];
  element("keys-state").textContent = isSealed
    ? "They are under your passphrase."
    : areThere
      ? ""
      : `They are made with the first input, in a few seconds${passphrase ? ", under your passphrase" : ""}.`;
  element("seal").hidden = isSealed || (!areThere && passphrase !== undefined);
  element("forget").hidden = element("export").hidden = !areThere;
  element("import").hidden = areThere;
  hideFiles();
}

/** Asks for a passphrase and puts the keys under it; returns whether one was given. Keys that are made later are under it, too. */
export async function seal(params) {
  const given = await asked({
    title: "Put the keys under a passphrase",
    note: "It is asked for when this page is opened again. Nobody can find out one that was forgotten: the keys are then lost.",
    done: "Put under it",
    isNew: true,
  });
  if (given === undefined) return false;
  passphrase = given;
  element("keys-state").textContent = "They are put under the passphrase, which takes some seconds.";
  if (await keystore.has(params)) (await keystore.open(params)).clientKeys.erase();
  return true;
}

/** Offers the pair's files. */
export async function offerFiles(params) {
  hideFiles();
  const files = await keystore.export(params);
  links = Object.entries(files).map(([name, bytes]) => {
    const href = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
    return Object.assign(document.createElement("a"), { href, download: name, textContent: name });
  });
  element("key-links").replaceChildren(...links);
  element("key-files-note").textContent = (await keystore.isSealed(params))
    ? "client.keys is under your passphrase."
    : "client.keys is not under a passphrase: whoever has it can read everything that was encrypted under it.";
  element("key-folder").textContent = params.id;
  element("key-offer").hidden = false;
  links[0].focus();
}

/** Takes in client.keys and evaluation.keys of one pair. */
export async function takeIn(params, files) {
  const named = (start) => Array.from(files).find(({ name }) => name.startsWith(start) && name.endsWith(".keys"));
  const found = [named("client"), named("evaluation")];
  if (!found.every(Boolean)) throw new BadShapeError("two files are needed: choose client.keys and evaluation.keys of one pair together");
  const [secret, evaluation] = await Promise.all(found.map(async (file) => new Uint8Array(await file.arrayBuffer())));
  await keystore.import(params, { "client.keys": secret, "evaluation.keys": evaluation });
}

/** Forgets the keys of a parameter set. */
export async function forget(params) {
  await keystore.erase(params);
  forgetPassphrase();
}

/** Asks for the passphrase anew when it is needed again. */
export function forgetPassphrase() {
  passphrase = undefined;
}

function hideFiles() {
  for (const { href } of links) URL.revokeObjectURL(href);
  links = [];
  element("key-offer").hidden = true;
}

/** What somebody types into the dialog, or undefined. */
function asked({ title, note, done, isNew = false }) {
  const [dialog, given, again] = [element("passphrase"), element("passphrase-given"), element("passphrase-again")];
  element("passphrase-title").textContent = title;
  element("passphrase-note").textContent = note;
  element("passphrase-done").textContent = done;
  element("passphrase-repeat").hidden = !isNew;
  given.autocomplete = isNew ? "new-password" : "current-password";
  again.required = isNew;
  given.value = again.value = "";
  const compare = () => again.setCustomValidity(isNew && again.value !== given.value ? "The two are not the same." : "");
  given.oninput = again.oninput = compare;
  compare();
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      resolve(dialog.returnValue === "done" ? given.value : undefined);
      given.value = again.value = "";
    };
  });
}

element("passphrase-form").addEventListener("submit", (event) => {
  event.preventDefault();
  element("passphrase").close("done");
});
element("passphrase-cancel").addEventListener("click", () => element("passphrase").close());
