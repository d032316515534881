// Inputs that are no images: a field for each value of a table's row, or one for all numbers of a long series, or for the steps of a sequence.

import { BadShapeError, OutOfLevelsError, nameOf, rangeOf } from "ciphershift";

const MOST_FIELDS = 64;

export class Fields {
  /** Calls `changed` whenever a value is changed. */
  constructor(element, changed) {
    this.element = element;
    this.changed = changed;
    this.fields = [];
    this.count = 0;
  }

  /** Makes the fields of a profile, named as its encoding says; what stands in them stays if there are as many. */
  make({ sampleShape, inputEncoding: encoding, inputLevels, inputSequences }) {
    const before = this.inputs().map((input) => input.value);
    const count = sampleShape.reduce((product, side) => product * side, 1);
    const kept = count === this.count ? before : [];
    this.count = count;
    this.isFew = count <= MOST_FIELDS && !inputSequences;
    this.sequence = inputSequences ? { features: sampleShape[0] - 1, length: sampleShape[1] } : null;
    this.fields = Array.from({ length: count }, (_, i) => {
      const feature = Math.floor((i * sampleShape[0]) / count);
      const [least, most] = encoding ? rangeOf(encoding, feature, inputLevels) : [0, 1];
      const name = encoding?.names.length ? nameOf(encoding, feature) : `value ${i + 1}`;
      return { name: count > sampleShape[0] ? `${name}, ${1 + (i % (count / sampleShape[0]))}` : name, least, most };
    });
    this.element.replaceChildren(...(this.isFew ? this.fields.map(field) : [series(count, this.sequence)]));
    this.inputs().forEach((input, i) => {
      input.value = kept[i] ?? "";
      input.addEventListener("input", () => this.changed());
    });
  }

  inputs() {
    return [...this.element.querySelectorAll("input, textarea")];
  }

  get isEmpty() {
    return this.inputs().every(({ value }) => !value.trim());
  }

  clear() {
    for (const input of this.inputs()) input.value = "";
    this.changed();
  }

  /** Shows an input: raw values, or bytes from 0 to 255 for 0 to 1. */
  show(values) {
    const shown = values instanceof Uint8Array ? Array.from(values, (value) => Number((value / 255).toFixed(3))) : Array.from(values);
    if (this.sequence) this.inputs()[0].value = stepsOf(shown, this.sequence);
    else this.fill(shown);
  }

  /** Takes numbers, one for each value, from text. */
  read(text) {
    if (this.sequence) {
      this.inputs()[0].value = text.trim();
      this.changed();
      return;
    }
    const found = text.split(/[\s,;]+/).filter(Boolean);
    if (found.length !== this.count) throw new BadShapeError(`the model takes ${this.count} numbers, the file has ${found.length}`);
    this.fill(found);
    this.changed();
  }

  fill(numbers) {
    if (this.isFew) this.inputs().forEach((input, i) => (input.value = numbers[i]));
    else this.inputs()[0].value = numbers.join(" ");
  }

  /** The input as numbers, or a sequence of them. Throws what has to be corrected. */
  values() {
    if (this.sequence) return sequenceOf(this.inputs()[0].value, this.sequence);
    const given = this.isFew ? this.inputs().map(({ value }) => value) : this.inputs()[0].value.split(/[\s,;]+/).filter(Boolean);
    if (given.length !== this.count) throw new BadShapeError(`the model takes ${this.count} numbers, here are ${given.length}`);
    return Float64Array.from(this.fields, ({ name }, i) => {
      if (given[i].trim() === "" || Number.isNaN(Number(given[i]))) throw new OutOfLevelsError(`${name} is ${given[i].trim() || "empty"}: give a number`);
      return Number(given[i]);
    });
  }
}

function field({ name, least, most }) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "number", step: "any", min: least, max: most, placeholder: `${shown(least)} to ${shown(most)}` });
  label.append(name, input);
  return label;
}

function series(count, sequence) {
  const label = Object.assign(document.createElement("label"), { className: "whole" });
  const text = sequence ? `1 to ${sequence.length} steps, a line each, of ${sequence.features} numbers` : `${count} numbers`;
  label.append(`${text}, separated by spaces or commas`, document.createElement("textarea"));
  return label;
}

/** A whole input as lines, one for each step that its presence has. */
function stepsOf(values, { features, length }) {
  const steps = Array.from({ length }, (_, step) => step).filter((step) => values[features * length + step] > 0.5);
  return steps.map((step) => Array.from({ length: features }, (_, feature) => values[feature * length + step]).join(" ")).join("\n");
}

/** Lines of numbers as a sequence; a first line of names is passed over. */
function sequenceOf(text, { features, length }) {
  const lines = text.split("\n").map((line) => line.split(/[\s,;]+/).filter(Boolean)).filter((cells) => cells.length);
  if (lines[0]?.every((cell) => Number.isNaN(Number(cell)))) lines.shift();
  if (lines.length < 1 || lines.length > length) throw new BadShapeError(`the model takes 1 to ${length} steps, a line each; here are ${lines.length}`);
  lines.forEach((cells, step) => {
    if (cells.length !== features) throw new BadShapeError(`each step takes ${features} numbers; step ${step + 1} has ${cells.length}`);
    const wrong = cells.find((cell) => Number.isNaN(Number(cell)));
    if (wrong !== undefined) throw new OutOfLevelsError(`step ${step + 1} has ${wrong}: give a number`);
  });
  const values = Array.from({ length: features }, (_, feature) => lines.map((cells) => Number(cells[feature])));
  return { steps: lines.length, values: Float64Array.from(values.flat()) };
}

function shown(number) {
  return Number(number.toPrecision(4));
}
