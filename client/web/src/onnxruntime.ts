/** onnxruntime-web as this package uses it: the caller brings it, and only the caller's package depends on it. */

import type { Bytes } from "./bytes.js";
import { bad, openFile } from "./onnx-file.js";

const MOST_VALUES = 1 << 26; // of one intermediate result, 256 MB
const PROVIDERS = ["wasm"];
const ERRORS = 3; // and no warnings on the user's console

/** What is used of the module `onnxruntime-web`. */
export interface OnnxRuntime {
  readonly InferenceSession: {
    create(content: Uint8Array, options: OnnxOptions): Promise<OnnxSession>;
  };
  readonly Tensor: new (type: "float32", data: Float32Array, dims: readonly number[]) => unknown;
}

/** How a session is made. */
export interface OnnxOptions {
  executionProviders: string[];
  graphOptimizationLevel: "disabled" | "all";
  logSeverityLevel: 3;
}

/** What is used of an InferenceSession. */
export interface OnnxSession {
  readonly inputMetadata: readonly OnnxValue[];
  readonly outputMetadata: readonly OnnxValue[];
  /** Takes and gives tensors of the runtime's own. */
  run(feeds: any): Promise<Readonly<Record<string, { readonly data: unknown }>>>;
  release(): Promise<void>;
}

/** What a runtime says of an input or output: unknown sides have names. */
export interface OnnxValue {
  readonly name: string;
  readonly isTensor: boolean;
  readonly type?: string;
  readonly shape?: readonly (number | string)[];
}

/** A file that was checked, ready to run. */
export class CheckedFile {
  readonly #runtime: OnnxRuntime;
  readonly #session: OnnxSession;
  readonly #dims: readonly number[];

  private constructor(runtime: OnnxRuntime, session: OnnxSession, dims: readonly number[]) {
    this.#runtime = runtime;
    this.#session = session;
    this.#dims = dims;
  }

  /**
   * Opens a file that takes float32 [1, ...] of one shape and gives [1, ...] of another. The sizes of all results are asked of the runtime itself,
   * by a session that computes nothing.
   *
   * @throws BadStemError the file is not one that a public part may be.
   */
  static async open(content: Bytes, inputShape: readonly number[], shape: readonly number[], runtime: OnnxRuntime): Promise<CheckedFile> {
    const { content: measured, outputs } = openFile(content);
    const measuring = await create(runtime, measured, "disabled", "is not valid");
    try {
      const { inputMetadata, outputMetadata } = measuring;
      requireShape("input", inputMetadata, inputShape);
      requireShape("output", outputMetadata.filter(({ name }) => outputs.includes(name)), shape);
      outputMetadata.forEach(requireSize);
    } finally {
      await measuring.release();
    }
    return new CheckedFile(runtime, await create(runtime, content, "all", "is refused by onnxruntime"), [1, ...inputShape]);
  }

  /** Returns the output for one input. */
  async run(input: Float32Array): Promise<Float32Array> {
    const [{ name }, { name: output }] = [this.#session.inputMetadata[0]!, this.#session.outputMetadata[0]!];
    const results = await this.#session.run({ [name]: new this.#runtime.Tensor("float32", input, this.#dims) });
    return results[output]!.data as Float32Array;
  }

  async close(): Promise<void> {
    await this.#session.release();
  }
}

async function create(runtime: OnnxRuntime, content: Bytes, graphOptimizationLevel: "disabled" | "all", problem: string): Promise<OnnxSession> {
  try {
    return await runtime.InferenceSession.create(content, { executionProviders: PROVIDERS, graphOptimizationLevel, logSeverityLevel: ERRORS });
  } catch (error) {
    throw bad(`${problem}: ${String(error instanceof Error ? error.message : error).replace(/\s+/g, " ").slice(0, 200)}`);
  }
}

function requireShape(what: string, values: readonly OnnxValue[], shape: readonly number[]): void {
  const wanted = [1, ...shape].join("x");
  if (values.length === 1 && values[0]!.type === "float32" && values[0]!.shape?.join("x") === wanted) return;
  const told = values.map((value) => value.shape?.join("x")).join(", ").slice(0, 100);
  throw bad(`has ${values.length} ${what}s (${told}); one of float32 ${wanted} is wanted: one sample at a time`);
}

/** A shape without sides is that of a number, or is not known; a side that is not known is a name, or -1 as 32 bits without sign. */
function requireSize({ name, isTensor, shape }: OnnxValue): void {
  const sides = (isTensor && shape) || [];
  if (!sides.length || !sides.every((side) => typeof side === "number" && side > 0 && side < 2 ** 31)) {
    throw bad(`has a result of unknown size (${name.slice(0, 40)}); export it for one sample of fixed shape`);
  }
  const values = (sides as number[]).reduce((product, side) => product * side, 1);
  if (values > MOST_VALUES) throw bad(`has a result of ${values} values (${name.slice(0, 40)}); at most ${MOST_VALUES}`);
}
