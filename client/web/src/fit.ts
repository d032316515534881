/** Images of any size, made to fit a model: a photograph by its middle, a drawing by its ink, as light ink on black. */

import { BadShapeError } from "./errors.js";
import { type CanvasPixels, fromCanvas, imageShape, luminance, opaque } from "./images.js";
import type { ModelProfile } from "./profile.js";
import { type Plane, crop, resized } from "./resample.js";

/** What a model's images are, which decides how others are made to fit. */
export type ImageKind = "drawing" | "photograph";

/** An image as a model takes it, and what was done to it. */
export interface Fitted {
  readonly pixels: Uint8Array;
  readonly steps: readonly ("resized" | "centered" | "inverted")[];
}

const INK_SIDE = 20 / 28; // share of the side that an MNIST digit fills
const WORKING_SIDE = 1024; // pixels; larger drawings are reduced before the ink is located
const PAPER = 0.25; // of the range from paper to ink; anything paler is paper
const LEAST_CONTRAST = 0.1;

/** Whether a model's classes are the ten digits; they get the position that MNIST gives them. */
export function readsDigits(profile: ModelProfile): boolean {
  return profile.classes.join() === "0,1,2,3,4,5,6,7,8,9";
}

/**
 * Returns an image of any size as a model takes it. One of the model's own size stays as it is.
 *
 * @param kind by default photographs for models in color, and drawings for the others.
 * @throws BadShapeError the image is empty, or the model takes no images.
 */
export function fit(image: CanvasPixels, profile: ModelProfile, kind?: ImageKind): Fitted {
  const [channels, height, width] = imageShape(profile);
  const whole = opaque(image);
  if (whole.width === width && whole.height === height) return { pixels: fromCanvas(whole, profile), steps: [] };
  if ((kind ?? (channels === 1 ? "drawing" : "photograph")) === "photograph" || channels !== 1) {
    const planes = channels === 1 ? [gray(whole)] : [0, 1, 2].map((channel) => plane(whole, (pixel) => pixel[channel]! / 255));
    return { pixels: bytes(planes.map((each) => resized(middle(each, width / height), width, height))), steps: ["resized"] };
  }
  const [ink, isInverted] = inkOf(gray(whole));
  const isCentered = readsDigits(profile);
  const share = isCentered ? INK_SIDE : 1;
  const factor = Math.min(Math.round(width * share) / ink.width, Math.round(height * share) / ink.height);
  const small = resized(ink, Math.max(Math.round(ink.width * factor), 1), Math.max(Math.round(ink.height * factor), 1));
  const steps: Fitted["steps"] = ["resized", ...(isCentered ? ["centered" as const] : []), ...(isInverted ? ["inverted" as const] : [])];
  return { pixels: bytes([placed(small, width, height, isCentered)]), steps };
}

/** The ink from 0 to 1, cropped to it, and whether it was dark on light. */
function inkOf(image: Plane): [Plane, boolean] {
  const factor = Math.min(WORKING_SIDE / Math.max(image.width, image.height), 1);
  const { values, width, height } = resized(image, Math.max(Math.round(image.width * factor), 1), Math.max(Math.round(image.height * factor), 1));
  const border = median(values.filter((_, at) => at < width || at >= width * (height - 1) || at % width === 0 || at % width === width - 1));
  const isInverted = border > 0.5;
  const gray = isInverted ? values.map((value) => 1 - value) : values;
  const paper = isInverted ? 1 - border : border;
  const most = gray.reduce((high, value) => Math.max(high, value), 0);
  const pale = paper + PAPER * (most - paper);
  const ink = gray.map((value) => Math.min(Math.max((value - pale) / Math.max(most - pale, 1e-9), 0), 1));
  let [left, top, right, bottom] = [width, height, -1, -1];
  ink.forEach((value, at) => {
    if (!value) return;
    const [x, y] = [at % width, Math.floor(at / width)];
    [left, top, right, bottom] = [Math.min(left, x), Math.min(top, y), Math.max(right, x), Math.max(bottom, y)];
  });
  if (most - paper < LEAST_CONTRAST || right < 0) throw new BadShapeError("the image is empty: draw something, or choose another image");
  return [crop({ values: ink, width, height }, left, top, right + 1 - left, bottom + 1 - top), isInverted];
}

/** A small image on black, its center of mass or the center of its box in the middle. */
function placed(small: Plane, width: number, height: number, byMass: boolean): Plane {
  let [mass, x, y] = [0, 0, 0];
  small.values.forEach((value, at) => {
    mass += value;
    x += value * (at % small.width);
    y += value * Math.floor(at / small.width);
  });
  const corner = (side: number, length: number, center: number): number =>
    Math.min(Math.max(Math.round(side / 2 - (byMass ? center : length / 2)), 0), side - length);
  const left = corner(width, small.width, x / mass);
  const top = corner(height, small.height, y / mass);
  const values = new Float64Array(width * height);
  for (let row = 0; row < small.height; row++) {
    values.set(small.values.subarray(row * small.width, (row + 1) * small.width), (top + row) * width + left);
  }
  return { values, width, height };
}

/** The largest part in the middle whose sides have this ratio. */
function middle(image: Plane, ratio: number): Plane {
  const width = Math.max(Math.min(image.width, Math.round(image.height * ratio)), 1);
  const height = Math.max(Math.min(image.height, Math.round(image.width / ratio)), 1);
  return crop(image, Math.floor((image.width - width) / 2), Math.floor((image.height - height) / 2), width, height);
}

function gray(image: CanvasPixels): Plane {
  return plane(image, (pixel) => luminance(pixel) / 255);
}

function plane({ data, width, height }: CanvasPixels, value: (pixel: Uint8ClampedArray) => number): Plane {
  return { values: Float64Array.from({ length: width * height }, (_, at) => value(data.subarray(4 * at, 4 * at + 3))), width, height };
}

function bytes(planes: readonly Plane[]): Uint8Array {
  return Uint8Array.from(planes.flatMap(({ values }) => Array.from(values, (value) => Math.round(255 * value))));
}

function median(values: Float64Array): number {
  const sorted = values.slice().sort();
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
}
