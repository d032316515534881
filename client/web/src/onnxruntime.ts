/** onnxruntime-web as this package uses it: the caller brings it, and only the caller's package depends on it. */

import type { Bytes } from "./bytes.js";
import { bad, openFile, type OpenedFile, type OpenedNode } from "./onnx-file.js";

const MOST_BYTES = 2 ** 30; // of all results together, as in the Python client
const MOST_WORK = 2 ** 37; // multiply-adds of one input
const TYPE_BYTES: Readonly<Record<string, number>> = { float32: 4, uint8: 1, int8: 1, int32: 64, int64: 64, bool: 1, float16: 2, float64: 8 };
const REAL = ["float32", "float16", "float64"];
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
  extra: { session: { load_model_format: "ONNX" } };
}

/** What is used of an InferenceSession. */
export interface OnnxSession {
  readonly inputMetadata: readonly OnnxValue[];
  readonly outputMetadata: readonly OnnxValue[];
  /** Takes and gives tensors of the runtime's own. */
  run(feeds: any): Promise<Readonly<Record<string, { readonly type: string; readonly dims: readonly number[]; readonly data: unknown }>>>;
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
  readonly #resultDims: readonly number[];

  private constructor(runtime: OnnxRuntime, session: OnnxSession, dims: readonly number[], resultDims: readonly number[]) {
    this.#runtime = runtime;
    this.#session = session;
    this.#dims = dims;
    this.#resultDims = resultDims;
  }

  /**
   * Opens a file that takes float32 [1, ...] of one shape and gives [1, ...] of another. The sizes of all results are asked of the runtime itself,
   * by a session that computes nothing.
   *
   * @throws BadStemError the file is not one that a public part may be.
   */
  static async open(content: Bytes, inputShape: readonly number[], shape: readonly number[], runtime: OnnxRuntime): Promise<CheckedFile> {
    const file = openFile(content);
    const measuring = await create(runtime, file.measured, "disabled", "is not valid");
    try {
      const { inputMetadata, outputMetadata } = measuring;
      requireShape("input", inputMetadata, inputShape);
      requireShape("output", outputMetadata.filter(({ name }) => file.outputs.includes(name)), shape);
      requireBounds(file, inputMetadata, outputMetadata);
    } finally {
      await measuring.release();
    }
    return new CheckedFile(runtime, await create(runtime, file.content, "all", "is refused by onnxruntime"), [1, ...inputShape], [1, ...shape]);
  }

  /**
   * Returns the output for one input.
   *
   * @throws BadStemError it cannot be computed for this input.
   */
  async run(input: Float32Array): Promise<Float32Array> {
    const [{ name }, { name: output }] = [this.#session.inputMetadata[0]!, this.#session.outputMetadata[0]!];
    const results = await this.#session.run({ [name]: new this.#runtime.Tensor("float32", input, this.#dims) }).catch((error: unknown) => {
      throw bad(`cannot be computed for this input (${short(error)}): give inputs of the kind that the model was made for`);
    });
    const { type, dims, data } = results[output]!;
    if (type !== "float32" || dims.join("x") !== this.#resultDims.join("x")) throw bad(`gives ${type} ${dims.join("x")} in place of float32 ${this.#resultDims.join("x")}; export it again`);
    return data as Float32Array;
  }

  async close(): Promise<void> {
    await this.#session.release();
  }
}

async function create(runtime: OnnxRuntime, content: Bytes, graphOptimizationLevel: "disabled" | "all", problem: string): Promise<OnnxSession> {
  try {
    const extra = { session: { load_model_format: "ONNX" } } as const;
    return await runtime.InferenceSession.create(content, { executionProviders: PROVIDERS, graphOptimizationLevel, logSeverityLevel: ERRORS, extra });
  } catch (error) {
    throw bad(`${problem}: ${short(error)}`);
  }
}

function short(error: unknown): string {
  return String(error instanceof Error ? error.message : error).replace(/\s+/g, " ").slice(0, 200);
}

function requireShape(what: string, values: readonly OnnxValue[], shape: readonly number[]): void {
  const wanted = [1, ...shape].join("x");
  if (values.length === 1 && values[0]!.type === "float32" && values[0]!.shape?.join("x") === wanted) return;
  const told = values.map((value) => value.shape?.join("x")).join(", ").slice(0, 100);
  throw bad(`has ${values.length} ${what}s (${told}); one of float32 ${wanted} is wanted: one sample at a time`);
}

/** Every result is of numbers and of known size; memory and work are bounded, and integers are divided by constants. */
function requireBounds(file: OpenedFile, inputs: readonly OnnxValue[], results: readonly OnnxValue[]): void {
  const sizes = new Map<string, readonly number[]>([...file.constants].map(([name, { sides }]) => [name, sides]));
  const types = new Map(results.map(({ name, type }) => [name, type ?? ""]));
  for (const value of [...inputs, ...results]) sizes.set(value.name, sidesOf(value));
  let bytes = 0;
  for (const [name, type] of types) {
    if (!(type in TYPE_BYTES)) throw bad(`has a result that is not of numbers (${name.slice(0, 40)}); use floating point`);
    bytes += product(sizes.get(name)!) * TYPE_BYTES[type]!;
  }
  if (bytes > MOST_BYTES) throw bad(`has results of ${bytes} bytes; at most ${MOST_BYTES}: cut the module earlier`);
  const work = file.nodes.reduce((sum, node) => sum + workOf(node, sizes), 0);
  if (work > MOST_WORK) throw bad(`takes ${work} multiply-adds; at most ${MOST_WORK}: cut the module earlier`);
  for (const { operator, inputs, outputs } of file.nodes) {
    if (!["Div", "Mod"].includes(operator) || REAL.includes(types.get(outputs[0]!)!) || file.constants.get(inputs[1]!)?.positive) continue;
    throw bad(`divides integers (${operator}) by something else than constants above 0; divide floats`);
  }
}

/** A shape without sides is that of a number, or is not known; a side that is not known is a name, or -1 as 32 bits without sign. */
function sidesOf({ name, isTensor, shape }: OnnxValue): readonly number[] {
  const sides = (isTensor && shape) || [];
  if (!sides.length || !sides.every((side) => typeof side === "number" && side > 0 && side < 2 ** 31)) {
    throw bad(`has a result of unknown size (${name.slice(0, 40)}); export it for one sample of fixed shape`);
  }
  return sides as number[];
}

/** Multiply-adds of a node, or what it reads and writes. */
function workOf({ operator, inputs, outputs, kernel }: OpenedNode, sizes: ReadonlyMap<string, readonly number[]>): number {
  const of = (name: string | undefined): readonly number[] => sizes.get(name ?? "") ?? [];
  const touched = [...inputs, ...outputs].reduce((sum, name) => sum + product(of(name)), 0);
  const result = product(of(outputs[0]));
  if (operator === "Conv") return touched + result * product(of(inputs[1]).slice(1));
  if (operator === "ConvTranspose") return touched + product(of(inputs[0])) * product(of(inputs[1]).slice(1));
  if (operator === "MatMul") return touched + result * (of(inputs[0]).at(-1) ?? 1);
  if (operator === "Gemm") return touched + product(of(inputs[0])) * (of(outputs[0])[1] ?? 1);
  if (operator === "AveragePool" || operator === "MaxPool") return touched + result * product(kernel);
  return touched;
}

function product(sides: readonly number[]): number {
  return sides.reduce((whole, side) => whole * side, 1);
}
