// Progress of the server layer by layer, and the seconds of each stage.

const element = (id) => document.getElementById(id);
const STAGES = { keys: "keys", encrypt: "encrypt", transfer: "transfer", server: "evaluate", decrypt: "decrypt" };

/** Shows an empty bar with a segment for each layer of a profile that has look-ups. */
export function blank(profile) {
  element("track").replaceChildren(
    ...profile.layers.filter((layer) => layer.lookups).map((layer) => {
      const piece = document.createElement("span");
      piece.style.flexGrow = layer.lookups;
      piece.title = `${layer.name}: ${layer.lookups} look-ups`;
      return piece;
    }),
  );
  advance(profile, 0);
  element("stage-bar").replaceChildren();
  element("stage-list").replaceChildren();
}

/** Fills the bar up to `done` look-ups; while the server computes, the layer at work is tinted. */
export function advance(profile, done, isRunning = false) {
  let before = 0;
  profile.layers.filter((layer) => layer.lookups).forEach((layer, i) => {
    const share = Math.min(Math.max((done - before) / layer.lookups, 0), 1);
    const piece = element("track").children[i];
    piece.style.backgroundSize = `${100 * share}% 100%`;
    piece.classList.toggle("now", isRunning && before <= done && share < 1);
    before += layer.lookups;
  });
  element("track").setAttribute("aria-valuemax", profile.bootstraps);
  element("track").setAttribute("aria-valuenow", done);
}

/** No layer is at work any more. */
export function rest() {
  for (const piece of element("track").children) piece.classList.remove("now");
}

/** One sentence about a job: how many wait before it, or the layer whose look-ups are being computed. */
export function sentence(profile, { state, progress, queuePosition }) {
  if (state === "pending") {
    return queuePosition ? `Waiting in the server's queue, ${queuePosition} before it.` : "Waiting for the server to start.";
  }
  const { bootstrapsDone: done, bootstrapsTotal: total, etaSeconds: left } = progress;
  if (!total) return "The server multiplies the ciphertext by its weights, without a look-up.";
  let before = 0;
  const index = profile.layers.findIndex(({ lookups }) => (before += lookups) > done);
  if (index < 0) return `All ${total} look-ups are done.`;
  const rest = left === null ? "" : `, about ${Math.ceil(left)} s left`;
  return `Layer ${index + 1} of ${profile.layers.length} (${profile.layers[index].kind}): ${done} of ${total} look-ups${rest}.`;
}

/** Shows the seconds of each stage. */
export function stages(seconds) {
  const names = Object.keys(seconds);
  const total = names.reduce((sum, name) => sum + seconds[name], 0);
  element("stage-bar").replaceChildren(
    ...names.map((name, i) => {
      const part = document.createElement("span");
      part.style.flexGrow = seconds[name] / total; // shares of less than a whole would leave a gap
      part.style.background = `var(--stage-${i + 1})`;
      return part;
    }),
  );
  element("stage-list").replaceChildren(
    ...names.map((name, i) => {
      const item = document.createElement("div");
      item.style.setProperty("--of", `var(--stage-${i + 1})`);
      item.append(text("dt", STAGES[name] ?? name), text("dd", `${seconds[name].toFixed(seconds[name] < 0.1 ? 3 : 2)} s`));
      return item;
    }),
  );
}

function text(tag, content) {
  const made = document.createElement(tag);
  made.textContent = content;
  return made;
}
