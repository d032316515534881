/** Inputs as a model takes them: whole numbers, in the order of its shape. */

import { BadShapeError, OutOfLevelsError } from "./errors.js";
import { integersOf, isBytes, roundHalfEven } from "./encoding.js";
import { type ModelProfile, valuesOf } from "./profile.js";
import { type Sequence, isSequence, padded, requirePresence } from "./sequences.js";

const LUMINANCE = [0.299, 0.587, 0.114] as const; // ITU-R BT.601

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
  if (profile.inputSequences) requirePresence(pixels, profile);
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
 * Returns a canvas' pixels as a model takes them: luminance for one channel, red, green and blue for three. Transparent parts are put on the
 * background that the ink stands out from.
 *
 * @throws BadShapeError the canvas has another size than the model's images, or is transparent all over; or the model takes no images of
 * one or three channels.
 */
export function fromCanvas(canvas: CanvasPixels, profile: ModelProfile): Uint8Array {
  const [channels, height, width] = imageShape(profile);
  if (canvas.width !== width || canvas.height !== height) {
    throw new BadShapeError(`the canvas has ${canvas.width} x ${canvas.height} pixels, ${profile.model} takes ${width} x ${height}`);
  }
  const size = width * height;
  const pixels = new Uint8Array(channels * size);
  const { data } = opaque(canvas);
  for (let at = 0; at < size; at++) {
    const pixel = data.subarray(4 * at, 4 * at + 3);
    if (channels === 1) pixels[at] = Math.round(luminance(pixel));
    else pixel.forEach((value, channel) => (pixels[channel * size + at] = value));
  }
  return pixels;
}

/** An image with transparent parts on the background that its ink stands out from. */
export function opaque(image: CanvasPixels): CanvasPixels {
  const { data, width, height } = image;
  let [light, cover, isOpaque] = [0, 0, true];
  for (let at = 0; at < data.length; at += 4) {
    const alpha = data[at + 3]!;
    isOpaque &&= alpha === 255;
    cover += alpha;
    light += alpha * luminance(data.subarray(at, at + 3));
  }
  if (isOpaque) return image;
  if (!cover) throw new BadShapeError("the image is fully transparent: draw something, or choose another image");
  const background = light / cover > 127.5 ? 0 : 255;
  return { width, height, data: data.map((value, at) => (at % 4 === 3 ? 255 : background + ((value - background) * data[at | 3]!) / 255)) };
}

/** Of red, green and blue. */
export function luminance(pixel: Uint8ClampedArray): number {
  return LUMINANCE[0] * pixel[0]! + LUMINANCE[1] * pixel[1]! + LUMINANCE[2] * pixel[2]!;
}

/** Returns channels, height and width of a model's images. Throws BadShapeError if it takes none of one or three channels. */
export function imageShape(profile: ModelProfile): [number, number, number] {
  const [channels, height, width] = profile.sampleShape;
  if (profile.sampleShape.length !== 3 || (channels !== 1 && channels !== 3)) {
    throw new BadShapeError(`${profile.model} takes values of shape ${profile.sampleShape.join(" x ")}, not images: give an array to predict`);
  }
  return [channels, height!, width!];
}
