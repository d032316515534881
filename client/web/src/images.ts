/** Inputs as a model takes them: whole numbers, in the order of its shape. */

import { BadShapeError, OutOfLevelsError } from "./errors.js";
import { integersOf, isBytes, roundHalfEven } from "./encoding.js";
import { type ModelProfile, valuesOf } from "./profile.js";
import { type Sequence, isSequence, padded } from "./sequences.js";

/** One input: bytes from 0 to 255 or floats from 0 to 1, or raw values where the profile has an encoding; of an image channel by channel and row by row, of a series channel by channel. */
export type Pixels = Uint8Array | Uint8ClampedArray | Float32Array | Float64Array;

/** One input as `predict` takes it: a sequence shorter than the model's own is padded. */
export type Input = Pixels | Sequence;

/** What a canvas gives: `ImageData`, or anything of that shape. */
export interface CanvasPixels {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8ClampedArray;
}

/**
 * Returns what is encrypted of an input: whole numbers, in the order that the network takes them. Of a model with a public part, give what that
 * part makes of the input.
 *
 * @throws BadShapeError another number of values than the model takes.
 * @throws OutOfLevelsError another type, or a value outside its range.
 */
export function toLevels(input: Input, profile: ModelProfile): Float64Array {
  const pixels = wholeOf(input, profile.inputShape, profile);
  if (profile.inputEncoding) return integersOf(pixels, profile.inputEncoding, profile.inputLevels);
  return unitOf(pixels).map((unit) => roundHalfEven(unit * profile.inputLevels));
}

/**
 * Returns an input as numbers from 0 to 1, as a public part takes them.
 *
 * @throws BadShapeError, OutOfLevelsError see `toLevels`.
 */
export function toUnit(input: Input, profile: ModelProfile): Float64Array {
  return unitOf(wholeOf(input, profile.sampleShape, profile));
}

function wholeOf(input: Input, shape: readonly number[], profile: ModelProfile): Pixels {
  const given = isSequence(input) ? input.values : input;
  if (!isBytes(given) && !(given instanceof Float32Array) && !(given instanceof Float64Array)) {
    throw new OutOfLevelsError("the input is no Uint8Array, Uint8ClampedArray, Float32Array or Float64Array: give bytes from 0 to 255 or floats from 0 to 1");
  }
  const pixels = isSequence(input) ? padded(input, profile) : given;
  if (pixels.length !== valuesOf(shape)) throw new BadShapeError(`the input has ${pixels.length} values, ${profile.model} takes ${shape.join(" x ")}`);
  return pixels;
}

function unitOf(pixels: Pixels): Float64Array {
  const most = isBytes(pixels) ? 255 : 1;
  return Float64Array.from(pixels as ArrayLike<number>, (value) => {
    if (!(value >= 0 && value <= most)) throw new OutOfLevelsError("the input holds values outside 0 to 1: scale floats, or give bytes from 0 to 255");
    return value / most;
  });
}

/**
 * Returns a canvas' pixels as a model takes them: luminance for one channel, red, green and blue for three.
 *
 * @throws BadShapeError the canvas has another size than the model's images, or the model takes no images of one or three channels.
 */
export function fromCanvas(canvas: CanvasPixels, profile: ModelProfile): Uint8Array {
  const [channels, height, width] = imageShape(profile);
  if (canvas.width !== width || canvas.height !== height) {
    throw new BadShapeError(`the canvas has ${canvas.width} x ${canvas.height} pixels, ${profile.model} takes ${width} x ${height}`);
  }
  const size = width * height;
  const pixels = new Uint8Array(channels * size);
  for (let at = 0; at < size; at++) {
    const [red, green, blue] = canvas.data.subarray(4 * at, 4 * at + 3) as unknown as [number, number, number];
    if (channels === 1) pixels[at] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue); // ITU-R BT.601
    else [red, green, blue].forEach((value, channel) => (pixels[channel * size + at] = value));
  }
  return pixels;
}

/** Returns channels, height and width of a model's images. Throws BadShapeError if it takes none of one or three channels. */
export function imageShape(profile: ModelProfile): [number, number, number] {
  const [channels, height, width] = profile.sampleShape;
  if (profile.sampleShape.length !== 3 || (channels !== 1 && channels !== 3)) {
    throw new BadShapeError(`${profile.model} takes values of shape ${profile.sampleShape.join(" x ")}, not images: give an array to predict`);
  }
  return [channels, height!, width!];
}
