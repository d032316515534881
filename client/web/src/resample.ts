/** Planes of values from 0 to 1, cropped and resized (Lanczos, three lobes, widened by the factor of reduction). */

/** One channel of an image, row by row. */
export interface Plane {
  readonly values: Float64Array;
  readonly width: number;
  readonly height: number;
}

const LOBES = 3;

/** Returns a part of a plane. */
export function crop({ values, width }: Plane, left: number, top: number, partWidth: number, partHeight: number): Plane {
  const part = new Float64Array(partWidth * partHeight);
  for (let row = 0; row < partHeight; row++) {
    const start = (top + row) * width + left;
    part.set(values.subarray(start, start + partWidth), row * partWidth);
  }
  return { values: part, width: partWidth, height: partHeight };
}

/** Returns a plane in another size; values stay within 0 and 1. */
export function resized(plane: Plane, width: number, height: number): Plane {
  return transposedAlong(transposedAlong(plane, width), height);
}

/** Resizes the rows, and returns the transpose: twice is the whole. */
function transposedAlong({ values, width, height }: Plane, length: number): Plane {
  const result = new Float64Array(length * height);
  const weights = weightsOf(width, length);
  for (let row = 0; row < height; row++) {
    weights.forEach(([first, factors], at) => {
      let sum = 0;
      for (let tap = 0; tap < factors.length; tap++) sum += factors[tap]! * values[row * width + first + tap]!;
      result[at * height + row] = Math.min(Math.max(sum, 0), 1);
    });
  }
  return { values: result, width: height, height: length };
}

/** For each place of the result, the first place that it is made of, and the weight of this one and those behind it. */
function weightsOf(from: number, to: number): [number, Float64Array][] {
  const scale = Math.max(from / to, 1);
  return Array.from({ length: to }, (_, at) => {
    const center = ((at + 0.5) * from) / to;
    const first = Math.max(Math.floor(center - LOBES * scale), 0);
    const last = Math.min(Math.ceil(center + LOBES * scale), from);
    const factors = Float64Array.from({ length: last - first }, (_, tap) => lanczos((first + tap + 0.5 - center) / scale));
    const sum = factors.reduce((total, factor) => total + factor, 0);
    return [first, factors.map((factor) => factor / sum)];
  });
}

function lanczos(x: number): number {
  return Math.abs(x) < LOBES ? sinc(x) * sinc(x / LOBES) : 0;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}
