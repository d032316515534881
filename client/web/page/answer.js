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
export function show(classes, logits, plain) {
  const best = largest(logits);
  element("verdict-class").textContent = classes[best];
  element("verdict").classList.toggle("long", classes[best].length > 2);
  element("verdict").dataset.class = classes[best];
  const second = logits.reduce((found, logit, i) => (i !== best && (found < 0 || logit > logits[found]) ? i : found), -1);
  element("verdict-note").textContent = second < 0 ? "" : `logit ${number(logits[best])}; next is ${classes[second]} with ${number(logits[second])}`;
  element("compare").hidden = plain !== null;
  rows(classes, logits, plain);
  if (plain === null) return;
  const clear = largest(plain);
  const difference = Math.max(...logits.map((logit, i) => Math.abs(logit - plain[i])));
  const says = clear === best ? "the same" : classes[clear];
  const how = difference < 0.005 ? "every logit is equal." : `no logit differs by more than ${number(difference)}, which is the encryption's noise.`;
  const mark = document.createElement("span");
  mark.className = "clear";
  mark.textContent = "In the clear";
  element("compared").replaceChildren(mark, ` the network says ${says}; ${how}`);
}

export function largest(values) {
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
