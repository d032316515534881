// The server: where it is, the key for it, and a client for each of its models. page.json, beside the page, says what is known of it.

import { CiphershiftError, Client, ConfigurationError, ForbiddenError, InsecureParamsError, UnauthorizedError, UnknownModelError, toLevels, toUnit } from "ciphershift";

const RETRY_SECONDS = 10; // somebody is waiting
const KEY = "ciphershift: API key";
const MARK = "#key=";

// `ciphershift page` prints an address with a key behind the #, which browsers send to nobody.
if (location.hash.startsWith(MARK)) {
  sessionStorage.setItem(KEY, location.hash.slice(MARK.length));
  history.replaceState(null, "", location.pathname);
}
addEventListener("hashchange", () => location.hash.startsWith(MARK) && location.reload());

/** Uses this API key from now on, as long as the tab is open. */
export function setApiKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** Whether an error says that the server wants another API key. */
export function wantsApiKey(error) {
  return error instanceof UnauthorizedError || error instanceof ForbiddenError;
}

/** What page.json says: the server's address, its name for people, the model to begin with, and where networks are evaluated in the clear. */
export async function settings() {
  const answer = await fetch("page.json", { cache: "no-store" });
  if (!answer.ok) throw new CiphershiftError(`page.json, beside this page, answers ${answer.status}`);
  const { server, name = null, model = null, clear = null } = await answer.json();
  const url = new URL(server, location.href).href;
  return { url, name: name ?? new URL(url).host, isLocal: clear !== null, model, clear };
}

/** Clients of the models that this package can use, those with the fewest look-ups first; the tab's keys are shared by all. */
export async function connect({ url }, keystore) {
  const options = { keystore, onnxruntime, retryTimeout: RETRY_SECONDS, ...apiKey() };
  const names = await Client.models(url, options);
  const found = await Promise.allSettled(names.map((model) => Client.connect(url, { ...options, model })));
  const clients = found.filter(({ status }) => status === "fulfilled").map(({ value }) => value);
  const failed = found.find(({ status, reason }) => status === "rejected" && !(reason instanceof InsecureParamsError));
  if (failed && !clients.length) throw failed.reason;
  return clients.sort((one, other) => one.profile.bootstraps - other.profile.bootstraps);
}

let loading;

/** onnxruntime-web, which computes the public part of a model, from the folder beside the page: the very files that this page was made with. */
function onnxruntime() {
  loading ??= load().catch(() => {
    loading = undefined;
    throw new ConfigurationError(
      `The network has a public part, which this page computes with onnxruntime-web ${ONNXRUNTIME.version}. Its files are not in the folder "onnxruntime" ` +
        "beside the page: whoever serves the page can put them there.",
    );
  });
  return loading;
}

/** A module that is imported is not compared with a digest, one that a script element has loaded before is. */
async function load() {
  const [module, kernel] = ONNXRUNTIME.files.map(({ name, integrity }) => ({ url: new URL(`onnxruntime/${name}`, location.href).href, integrity }));
  await new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), { type: "module", src: module.url, integrity: module.integrity });
    script.onload = resolve;
    script.onerror = reject;
    document.head.append(script);
  });
  const runtime = await import(module.url);
  runtime.env.wasm.wasmBinary = await (await fetch(kernel.url, { integrity: kernel.integrity })).arrayBuffer();
  return runtime;
}

/** What the server says of a model's inputs; nothing, if it is older than that question. */
export async function inputsOf(client) {
  try {
    return await client.inputs();
  } catch (error) {
    if (error.code !== new CiphershiftError().code && !(error instanceof UnknownModelError)) throw error;
    return { images: null, examples: [] };
  }
}

/** The logits of the same network without encryption, from the process on this machine that has a copy of it. */
export async function inTheClear({ clear }, profile, values) {
  const query = new URLSearchParams({ model: profile.model, digest: profile.programDigest });
  const headers = { Authorization: `Bearer ${apiKey().apiKey}`, "Content-Type": "application/octet-stream" };
  const answer = await fetch(`${clear}?${query}`, { method: "POST", headers, body: bytesOf(profile, values) });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.detail);
  return said.logits;
}

/**
 * An input as bytes, within the ranges of the network: steps above the least value where the profile has an encoding, and 0 to 255 where it has none, as networks take them in
 * the clear. With `isShown` always 0 to 255, to be drawn. Of a network with a public part, what that is given.
 */
export function bytesOf(profile, values, isShown = false) {
  if (profile.stem) return Uint8Array.from(toUnit(values, profile), (unit) => Math.round(255 * unit));
  const { inputEncoding: encoding, inputLevels } = profile;
  const steps = toLevels(values, profile).map((level, at, all) => level - (encoding?.lowest[Math.floor((at * encoding.lowest.length) / all.length)] ?? 0));
  return Uint8Array.from(steps, (step) => (encoding && !isShown ? step : Math.round((255 * step) / inputLevels)));
}

function apiKey() {
  const key = sessionStorage.getItem(KEY);
  return key ? { apiKey: key } : {};
}
