// The answer: logits as bars, beside those of the same network in the clear when they are known.

const element = (id) => document.getElementById(id);

/** Shows classes without logits. */
export function blank(classes) {
  element("verdict-class").textContent = "";
  element("verdict-note").textContent = "No answer yet.";
  element("verdict").removeAttribute("data-class");
  element("compared").textContent = "";
  element("compare").hidden = true;
  rows(classes, null, null);
}

/** Shows logits, and those of the plaintext network if there are any. */
export function show(profile, logits, plain) {
  const { classes } = profile;
  const best = largest(logits);
  const said = verdict(profile, logits);
  element("verdict-class").textContent = said;
  element("verdict").classList.toggle("long", said.length > 2);
  element("verdict").dataset.class = said;
  const second = logits.reduce((found, logit, i) => (i !== best && (found < 0 || logit > logits[found]) ? i : found), -1);
  const isNoted = second >= 0 && !profile.outputs;
  element("verdict-note").textContent = isNoted ? `logit ${number(logits[best])}; next is ${classes[second]} with ${number(logits[second])}` : "";
  element("compare").hidden = plain !== null;
  rows(classes, logits, plain);
  if (plain === null) return;
  const clear = verdict(profile, plain);
  const difference = Math.max(...logits.map((logit, i) => Math.abs(logit - plain[i])));
  const says = clear === said ? "the same" : clear;
  const how = difference < 0.005 ? "every logit is equal." : `no logit differs by more than ${number(difference)}, which is the encryption's noise.`;
  const mark = document.createElement("span");
  mark.className = "clear";
  mark.textContent = "In the clear";
  element("compared").replaceChildren(mark, ` the network says ${says}; ${how}`);
}

/** The values of all outputs, in the order of the profile: an object's own has names that look like numbers first. */
export function flat({ outputs: order }, prediction) {
  const outputs = prediction instanceof Float64Array ? [prediction] : order.map(({ name }) => prediction[name]);
  return outputs.flatMap((values) => Array.from(values));
}

/** The class of the greatest logit; of several outputs, what each says: a class, or a number. */
export function verdict({ classes, outputs }, logits) {
  let start = 0;
  const parts = (outputs ?? [{ name: "", shape: [classes.length] }]).map(({ name, shape }) => {
    const end = start + shape.reduce((product, side) => product * side, 1);
    const values = logits.slice(start, end);
    const said = values.length === 1 && outputs ? number(values[0]) : classes[start + largest(values)];
    start = end;
    return `${name} ${said}`.trim();
  });
  return parts.join("; ");
}

function largest(values) {
  return values.indexOf(Math.max(...values));
}

function rows(classes, logits, plain) {
  const all = [0, ...(logits ?? []), ...(plain ?? [])];
  const low = Math.min(...all);
  const span = Math.max(...all) - low || 1;
  const best = logits ? largest(logits) : -1;
  element("logits").replaceChildren(
    ...classes.map((name, i) => {
      const row = document.createElement("tr");
      row.classList.toggle("best", i === best);
      const heading = document.createElement("th");
      heading.scope = "row";
      heading.textContent = name;
      const bar = document.createElement("div");
      bar.className = "bar";
      bar.style.setProperty("--zero", `${(-100 * low) / span}%`);
      if (logits) bar.append(piece(logits[i], low, span, ""));
      if (plain) bar.append(piece(plain[i], low, span, "clear"));
      row.append(heading, cell(bar), cell(logits ? number(logits[i]) : ""), cell(plain ? number(plain[i]) : ""));
      return row;
    }),
  );
}

function piece(value, low, span, kind) {
  const bar = document.createElement("i");
  bar.className = kind;
  bar.style.setProperty("--from", `${(100 * (Math.min(value, 0) - low)) / span}%`);
  bar.style.setProperty("--size", `${(100 * Math.abs(value)) / span}%`);
  return bar;
}

function number(value) {
  return value.toFixed(2).replace("-", "\u2212");
}

function cell(content) {
  const cell = document.createElement("td");
  cell.append(content);
  return cell;
}
