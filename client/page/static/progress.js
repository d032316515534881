// Progress of the server layer by layer, and the seconds of each stage.

const element = (id) => document.getElementById(id);
const STAGES = { keys: "keys", encrypt: "encrypt", transfer: "transfer", server: "evaluate", decrypt: "decrypt" };

/** Shows an empty bar with a segment for each layer that has look-ups. */
export function blank(model) {
  element("track").replaceChildren(
    ...model.layers.filter((layer) => layer.lookups).map((layer) => {
      const piece = document.createElement("span");
      piece.style.flexGrow = layer.lookups;
      piece.title = `${layer.name}: ${layer.lookups} look-ups`;
      return piece;
    }),
  );
  advance(model, 0);
  element("stage-bar").replaceChildren();
  element("stage-list").replaceChildren();
}

/** Fills the bar up to `done` look-ups; while the server computes, the layer at work is tinted. */
export function advance(model, done, isRunning = false) {
  let before = 0;
  model.layers.filter((layer) => layer.lookups).forEach((layer, i) => {
    const share = Math.min(Math.max((done - before) / layer.lookups, 0), 1);
    const piece = element("track").children[i];
    piece.style.backgroundSize = `${100 * share}% 100%`;
    piece.classList.toggle("now", isRunning && before <= done && share < 1);
    before += layer.lookups;
  });
  element("track").setAttribute("aria-valuemax", model.bootstraps);
  element("track").setAttribute("aria-valuenow", done);
}

/** No layer is at work any more. */
export function rest() {
  for (const piece of element("track").children) piece.classList.remove("now");
}

/** One sentence about the layer whose look-ups are being computed. */
export function sentence(model, { ahead, done, total, left }) {
  if (ahead !== null) return ahead ? `Waiting in the server's queue, ${ahead} before it.` : "Waiting for the server to start.";
  let before = 0;
  const index = model.layers.findIndex(({ lookups }) => (before += lookups) > done);
  if (index < 0) return `All ${total} look-ups are done.`;
  const rest = left === null ? "" : `, about ${Math.ceil(left)} s left`;
  return `Layer ${index + 1} of ${model.layers.length} (${model.layers[index].kind}): ${done} of ${total} look-ups${rest}.`;
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
