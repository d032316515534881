/** Sequences of any length up to a model's own, padded so that the server does not learn how long they are: as protocol/sequences.py does it. */

import { isBytes } from "./encoding.js";
import { BadShapeError } from "./errors.js";
import type { Pixels } from "./images.js";
import type { ModelProfile } from "./profile.js";

/** A sequence of its own length, for models whose profile has `inputSequences`. */
export interface Sequence {
  /** From 1 to the model's own. */
  readonly steps: number;
  /** As many values for each feature, one feature after the other. */
  readonly values: Pixels;
}

/** Tells a sequence from a whole input. */
export function isSequence(input: Pixels | Sequence): input is Sequence {
  return typeof input === "object" && input !== null && "steps" in input;
}

/**
 * Accepts a whole input whose last feature is 0 before the sequence and 1 where it runs, up to the end, but for rounding.
 *
 * @throws BadShapeError it is anything else.
 */
export function requirePresence(input: Pixels, profile: ModelProfile): void {
  const [rows, length] = profile.inputShape as [number, number];
  const one = isBytes(input) && (profile.inputEncoding?.pixels ?? true) ? 255 : 1;
  const step = profile.inputEncoding?.step.at(-1) ?? 1 / profile.inputLevels;
  const presence = Array.from(input.subarray((rows - 1) * length), (value) => value / one);
  const runs = presence.map((value) => Math.abs(value - 1) <= step / 2);
  if (!runs.at(-1) || presence.some((value, at) => !runs[at] && (Math.abs(value) > step / 2 || runs[at - 1]))) {
    throw new BadShapeError(
      `the last feature of an input of ${profile.sampleShape.join(" x ")} values is the presence, 0 before the sequence and 1 where it runs, up to the ` +
        `end; give a sequence of ${rows - 1} features, and it is added`,
    );
  }
}

/**
 * Returns the whole input: zeros before the sequence, and a last feature that is 1 where it runs.
 *
 * @throws BadShapeError the model takes no sequences, or none of so many steps or features.
 */
export function padded({ steps, values }: Sequence, profile: ModelProfile): Float64Array {
  if (!profile.inputSequences) throw new BadShapeError(`${profile.model} takes no sequences: give an array of ${profile.sampleShape.join(" x ")} values`);
  const [rows, length] = profile.inputShape as [number, number];
  const features = rows - 1;
  if (!Number.isInteger(steps) || steps < 1 || steps > length || values.length !== features * steps) {
    throw new BadShapeError(
      `the sequence has ${values.length} values in ${steps} steps; ${profile.model} takes ${features} features, without the presence, which is added, and ` +
        `1 to ${length} steps: cut longer sequences, leave out empty ones`,
    );
  }
  const most = isBytes(values) && (profile.inputEncoding?.pixels ?? true) ? 255 : 1; // bytes stand for 0 to 1, as the presence's two values do
  const input = new Float64Array(rows * length);
  values.forEach((value, at) => {
    const feature = Math.floor(at / steps);
    input[(feature + 1) * length - steps + (at % steps)] = value / most;
  });
  return input.fill(1, rows * length - steps);
}
