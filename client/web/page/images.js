// Images from files and examples, as what a canvas gives.

import { BadShapeError, MalformedError } from "ciphershift";

const WORKING_SIDE = 1024; // pixels; larger images are reduced first

/** Decodes a file; returns what can be shown and its pixels. */
export async function decoded(file) {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new MalformedError(`${file.name} is no image that this browser can read: use PNG, JPEG or WebP`);
  });
  const { width, height } = bitmap;
  const factor = Math.min(WORKING_SIDE / Math.max(width, height), 1);
  const canvas = blank(Math.max(Math.round(width * factor), 1), Math.max(Math.round(height * factor), 1));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return { name: file.name, shown: bitmap, size: [width, height], image: context.getImageData(0, 0, canvas.width, canvas.height) };
}

/** An image of values [C, H, W] from 0 to 255. */
export function ofValues(values, [channels, height, width]) {
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = values[(channels === 1 ? 0 : c) * width * height + i];
    image.data[4 * i + 3] = 255;
  }
  return image;
}

/** A canvas that shows an image. */
export function canvasOf(image) {
  const canvas = blank(image.width, image.height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function blank(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

/** Reads numbers from a file of text. */
export async function numbers(file) {
  const text = await file.text();
  if (text.length > 1e6 || text.includes("\0")) throw new BadShapeError(`${file.name} is no file of numbers`);
  return text;
}
