// Bytes as images: the values that a model takes, and the bytes of a ciphertext.

import { ofValues } from "./images.js";

const DARK = [11, 16, 19];
const NOISE = [111, 224, 207];
const HEADER = [251, 241, 220];
const REVEAL_MILLISECONDS = 600;

/** Draws an input, 0 to 255: an image [C, H, W], or a bar for each value of anything else. */
export function values(canvas, values, shape) {
  if (shape.length === 3) pixels(canvas, values, shape);
  else bars(canvas, values);
}

function bars(canvas, values) {
  canvas.width = canvas.height = 2 * values.length;
  const context = canvas.getContext("2d");
  context.fillStyle = `rgb(${HEADER})`;
  values.forEach((value, i) => context.fillRect(2 * i, canvas.height * (1 - value / 255), 1, (canvas.height * value) / 255));
}

function pixels(canvas, values, shape) {
  const image = ofValues(values, shape);
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Draws one point for each byte of a ciphertext; the first `header` bytes are public and in another color. */
export function ciphertext(canvas, values, header) {
  const side = Math.ceil(Math.sqrt(values.length));
  canvas.width = canvas.height = side;
  const image = new ImageData(side, side);
  values.forEach((value, i) => {
    const color = i < header ? HEADER : NOISE;
    const share = i < header ? 0.35 + (0.65 * value) / 255 : value / 255;
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = DARK[c] + share * (color[c] - DARK[c]);
    image.data[4 * i + 3] = 255;
  });
  const context = canvas.getContext("2d");
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
    context.putImageData(image, 0, 0);
    return;
  }
  const started = performance.now();
  const reveal = (now) => {
    const rows = Math.min(Math.ceil((side * (now - started)) / REVEAL_MILLISECONDS), side);
    context.putImageData(image, 0, 0, 0, 0, side, rows);
    if (rows < side && canvas.width === side) requestAnimationFrame(reveal);
  };
  requestAnimationFrame(reveal);
}
