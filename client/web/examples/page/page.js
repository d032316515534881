// The page of docs/browser.md: a pad, an image or both, to logits. The server's address is in the page's own: ?server=https://he.example.org
import { Client, fit } from "./ciphershift.js";

import { pad } from "./pad.js";

const element = (id) => document.getElementById(id);
const address = new URLSearchParams(location.search);
let client;

function say(text, share = 0) {
  element("status").textContent = text;
  element("done").value = share;
}

function tell(progress) {
  if (progress.stage === "keys") say("Making keys; they stay in this browser.", progress.share);
  else if (progress.stage === "upload") say("Sending evaluation keys, once.", progress.sent / progress.total);
  else {
    const { layer, bootstrapsDone, bootstrapsTotal } = progress.status.progress;
    say(layer ? `The server computes ${layer}: ${bootstrapsDone} of ${bootstrapsTotal} look-ups.` : "Waiting.", bootstrapsDone / bootstrapsTotal);
  }
}

function show(logits) {
  const best = logits.indexOf(Math.max(...logits));
  const rows = client.profile.classes.map((name, at) => {
    const row = document.createElement("tr");
    row.className = at === best ? "best" : "";
    row.append(...[name, logits[at].toFixed(2)].map((text) => Object.assign(document.createElement("td"), { textContent: text })));
    return row;
  });
  element("logits").replaceChildren(...rows);
  const { encrypt, server, decrypt } = client.timings;
  const milliseconds = (seconds) => `${Math.round(1000 * seconds)} ms`;
  say(`The answer is ${client.profile.classes[best]}, decrypted here. Encrypted in ${milliseconds(encrypt)}, computed in ${milliseconds(server)}, decrypted in ${milliseconds(decrypt)}.`, 1);
}

async function attempt(work) {
  try {
    await work();
  } catch (error) {
    say(`${error.message} (${error.code ?? error.name})`);
  }
}

const drawing = pad(element("pad"));
element("clear").onclick = () => drawing.clear();
element("file").onchange = ({ target }) => attempt(async () => drawing.put(await createImageBitmap(target.files[0])));
element("send").onclick = () =>
  attempt(async () => {
    element("send").disabled = true;
    try {
      const { pixels } = fit(drawing.pixels(), client.profile);
      show(await client.predict(pixels, { onProgress: tell }));
    } finally {
      element("send").disabled = false;
    }
  });
element("forget").onclick = () =>
  attempt(async () => {
    await client.close();
    await client.keystore.erase(client.profile.params);
    await connect();
    say("The keys are gone from this browser; new ones are made with the next image.");
  });

async function connect() {
  client = await Client.connect(address.get("server") ?? location.origin, { model: address.get("model") ?? "mnist-tiny" });
}

attempt(async () => {
  await connect();
  element("send").disabled = false;
  say(`Connected: ${client.profile.model}, keys of ${Math.round(client.profile.securityBits)} bits.`);
});
