// Inputs that are no images: a field for each value of a table's row, or one for all numbers of a long series.

import { BadShapeError, OutOfLevelsError } from "ciphershift";

const MOST_FIELDS = 64;
const LARGEST = 255;

export class Fields {
  /** Calls `changed` whenever a value is changed. */
  constructor(element, changed) {
    this.element = element;
    this.changed = changed;
    this.fields = [];
    this.count = 0;
  }

  /** Makes the fields of a model; what stands in them stays if there are as many. */
  make(profile, fields) {
    const before = this.isFew ? this.inputs().map((input) => input.value) : [this.inputs()[0]?.value];
    const count = profile.inputShape.reduce((product, side) => product * side, 1);
    const kept = count === this.count ? before : [];
    this.count = count;
    this.isFew = count <= MOST_FIELDS;
    const unnamed = (i) => ({ name: `value ${i + 1}`, least: 0, most: 1 });
    this.fields = Array.from({ length: count }, (_, i) => fields[i] ?? unnamed(i));
    this.element.replaceChildren(...(this.isFew ? this.fields.map(field) : [series(count)]));
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

  /** Shows an input, bytes from 0 to 255. */
  show(values) {
    const numbers = this.fields.map(({ least, most }, i) => rounded(least + ((most - least) * values[i]) / LARGEST, most - least));
    this.fill(numbers);
  }

  /** Takes numbers, one for each value, from text. */
  read(text) {
    const found = text.split(/[\s,;]+/).filter(Boolean);
    if (found.length !== this.count) throw new BadShapeError(`the model takes ${this.count} numbers, the file has ${found.length}`);
    this.fill(found);
    this.changed();
  }

  fill(numbers) {
    if (this.isFew) this.inputs().forEach((input, i) => (input.value = numbers[i]));
    else this.inputs()[0].value = numbers.join(" ");
  }

  /** The input as bytes from 0 to 255. Throws what has to be corrected. */
  values() {
    const given = this.isFew ? this.inputs().map(({ value }) => value) : this.inputs()[0].value.split(/[\s,;]+/).filter(Boolean);
    if (given.length !== this.count) throw new BadShapeError(`the model takes ${this.count} numbers, here are ${given.length}`);
    return Uint8Array.from(this.fields, ({ name, least, most }, i) => {
      const value = Number(given[i]);
      if (given[i].trim() === "" || !(value >= least && value <= most)) {
        throw new OutOfLevelsError(`${name} is ${given[i].trim() || "empty"}: give a number from ${least} to ${most}`);
      }
      return most === least ? 0 : Math.round((LARGEST * (value - least)) / (most - least));
    });
  }
}

function field({ name, least, most }) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "number", step: "any", min: least, max: most, placeholder: `${least} to ${most}` });
  label.append(name, input);
  return label;
}

function series(count) {
  const label = Object.assign(document.createElement("label"), { className: "whole" });
  label.append(`${count} numbers from 0 to 1, separated by spaces or commas`, document.createElement("textarea"));
  return label;
}

/** With as many digits as tell the steps of the range apart. */
function rounded(value, range) {
  const digits = Math.min(Math.max(Math.ceil(Math.log10(LARGEST / (range || 1))), 0), 12);
  return Number(value.toFixed(digits));
}
