/** How raw values of any range become the integers that are encrypted: each feature, a place on the first axis, with its own zero and step. */

import { OutOfLevelsError } from "./errors.js";
import type { Pixels } from "./images.js";
import type { Members } from "./reading.js";

/** A feature's integer is (raw - origin) / step, rounded, from `lowest` to `lowest` + levels. */
export interface InputEncoding {
  readonly origin: readonly number[];
  readonly step: readonly number[];
  readonly lowest: readonly number[];
  /** Of the features, or none: they are numbered. */
  readonly names: readonly string[];
  /** Bytes from 0 to 255 stand for raw values from 0 to 1. */
  readonly pixels: boolean;
}

/** Reads an encoding of so many features. Throws MalformedError. */
export function readEncoding(members: Members, features: number): InputEncoding {
  const each = (name: string, least: number, most: number): number[] => members.numbers(name, features, least, most);
  const names = members.optional("names", (name) => members.texts(name, features)) ?? [];
  if (names.length) members.texts("names", features, features); // all or none
  return {
    origin: each("origin", -Infinity, Infinity),
    step: each("step", 1e-12, 1e12),
    lowest: each("lowest", -255, 0),
    names,
    pixels: members.optional("pixels", (name) => members.flag(name)) ?? false,
  };
}

/** Returns what a feature is called in messages. */
export function nameOf(encoding: InputEncoding, feature: number): string {
  return encoding.names[feature] ?? `feature ${feature}`;
}

/** Returns the least and the greatest raw value of a feature, but for half a step. */
export function rangeOf({ origin, step, lowest }: InputEncoding, feature: number, levels: number): [number, number] {
  const least = origin[feature]! + step[feature]! * lowest[feature]!;
  return [least, least + step[feature]! * levels];
}

/** Returns raw values as integers. Throws OutOfLevelsError for a value that is no number or outside its feature's range. */
export function integersOf(values: Pixels, encoding: InputEncoding, levels: number): Float64Array {
  const isByte = encoding.pixels && isBytes(values);
  const perFeature = values.length / encoding.origin.length;
  return Float64Array.from(values as ArrayLike<number>, (value, at) => {
    const feature = Math.floor(at / perFeature);
    const integer = roundHalfEven(((isByte ? value / 255 : value) - encoding.origin[feature]!) / encoding.step[feature]!);
    const lowest = encoding.lowest[feature]!;
    if (!(integer >= lowest && integer <= lowest + levels)) {
      const [least, most] = rangeOf(encoding, feature, levels);
      throw new OutOfLevelsError(`${nameOf(encoding, feature)} is ${value}; the model takes ${shown(least)} to ${shown(most)}`);
    }
    return integer;
  });
}

/** Whether an input is of bytes. */
export function isBytes(values: Pixels): boolean {
  return values instanceof Uint8Array || values instanceof Uint8ClampedArray;
}

/** Rounds as the Python client does, so that both encrypt the same integers. */
export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + Math.abs(floor % 2) : Math.round(value);
}

/** A number with six digits at most, as Python shows it. */
function shown(value: number): string {
  return String(Number(value.toPrecision(6)));
}
