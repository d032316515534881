/**
 * What the ONNX file of a public part may hold: the standard's arithmetic, within one file and without branches. A server chose the file, so
 * it is read here before any runtime sees it (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, in protobuf's wire format).
 */

import { type Bytes, concat } from "./bytes.js";
import { BadStemError } from "./errors.js";

const OPSETS = [13, 21] as const; // as in the Python client
const STANDARD = ["", "ai.onnx"];
/** The operators that are run, as in the Python client. */
export const OPERATORS: ReadonlySet<string> = new Set(
  `
  Abs Acos Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape
  Conv ConvTranspose Cos Cosh CumSum DepthToSpace Div Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm
  GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsInf
  IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad
  Pow Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
  ReduceSumSquare Relu Reshape Resize Round ScatterElements ScatterND Selu Sigmoid Sign Sin Sinh Slice Softmax Softplus Softsign
  SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
  `.trim().split(/\s+/),
);
const TYPES = [1, 2, 3, 6, 7, 9, 10, 11]; // of numbers, as in the Python client
const INTEGERS: Readonly<Record<number, (buffer: ArrayBuffer) => Iterable<number | bigint>>> = {
  2: (buffer) => new Uint8Array(buffer),
  3: (buffer) => new Int8Array(buffer),
  6: (buffer) => new Int32Array(buffer.slice(0, buffer.byteLength - (buffer.byteLength % 4))),
  7: (buffer) => new BigInt64Array(buffer.slice(0, buffer.byteLength - (buffer.byteLength % 8))),
};
const POSITIVE = ["blocksize", "dilations", "group", "kernel_shape", "num_groups", "num_outputs", "size", "strides"]; // what readers divide by
const ORT = 0x4d54524f; // "ORTM", at byte 4 of a file in onnxruntime's own format
const MODEL = { irVersion: 1, graph: 7, opset: 8, training: 20, functions: 25 };
const OPSET = { domain: 1, version: 2 };
const GRAPH = { node: 1, name: 2, initializer: 5, input: 11, output: 12, sparse: 15 };
const NODE = { input: 1, output: 2, operator: 4, attribute: 5, domain: 7 };
const ATTRIBUTE = { name: 1, integer: 3, text: 4, tensor: 5, graph: 6, integers: 8, texts: 9, tensors: 10, graphs: 11, sparse: 22, sparses: 23 };
const TENSOR = { dims: 1, type: 2, int32s: 5, int64s: 7, name: 8, raw: 9, externalData: 13, location: 14 };
const VALUE_NAME = 1;
const VARINT = 0;
const DELIMITED = 2;
const FIXED_BYTES: Readonly<Record<number, number>> = { 1: 8, 5: 4 };

/** A field as it stands in a message: its number, its value, and all of its bytes. */
interface Part {
  readonly field: number;
  readonly value: number | Bytes;
  readonly whole: Bytes;
}

/** A node, as far as its work and its division depend on it. */
export interface OpenedNode {
  readonly operator: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly kernel: readonly number[];
}

/** A weight or constant: its sides, and whether it is of integers above 0. */
export interface Constant {
  readonly sides: readonly number[];
  readonly positive: boolean;
}

/** A file of nothing but what was read here. */
export interface OpenedFile {
  readonly content: Bytes;
  /** The same with every result as an output, so that a runtime tells the size of each; what the file claims of them is left out. */
  readonly measured: Bytes;
  /** Of the file itself. */
  readonly outputs: readonly string[];
  readonly nodes: readonly OpenedNode[];
  readonly constants: ReadonlyMap<string, Constant>;
}

/**
 * Reads a file.
 *
 * @throws BadStemError it holds something else than arithmetic, or is no ONNX.
 */
export function openFile(content: Bytes): OpenedFile {
  if (content.length >= 8 && new DataView(content.buffer, content.byteOffset).getUint32(4, true) === ORT) throw bad("is of onnxruntime's own format; write it as ONNX");
  const model = messageOf(content);
  for (const opset of model.filter(({ field }) => field === MODEL.opset)) requireOpset(messageOf(bytesOf(opset)));
  if (model.some(({ field }) => field === MODEL.functions || field === MODEL.training)) {
    throw bad("defines functions or training steps; write the operators out");
  }
  const graphs = model.filter(({ field }) => field === MODEL.graph);
  if (graphs.length !== 1) throw bad("does not hold one graph");
  const graph = messageOf(bytesOf(graphs[0]!));
  if (graph.some(({ field }) => field === GRAPH.sparse)) throw bad("has sparse or external data; write all weights into the file");
  const constants = new Map<string, Constant>();
  for (const { field, value } of graph) {
    if (field === GRAPH.initializer) constants.set(nameOf({ value }, TENSOR.name), constantOf(value));
  }
  const nodes = graph.filter(({ field }) => field === GRAPH.node).map((node) => nodeOf(messageOf(bytesOf(node)), constants));
  const outputs = graph.filter(({ field }) => field === GRAPH.output).map((part) => nameOf(part, VALUE_NAME));
  const results = nodes.flatMap((node) => (node.operator === "Constant" ? [] : node.outputs.filter(Boolean))); // a constant is no larger than the file
  const named = [...new Set([...outputs, ...results])].map((name) => delimited(GRAPH.output, delimited(VALUE_NAME, new TextEncoder().encode(name))));
  const kept = ({ field, value }: Part): boolean =>
    [GRAPH.node, GRAPH.name, GRAPH.initializer].includes(field) || (field === GRAPH.input && !constants.has(nameOf({ value }, VALUE_NAME)));
  const inside = graph.filter(kept).map(({ whole }) => whole);
  const stated = graph.filter(({ field }) => field === GRAPH.output).map(({ whole }) => whole);
  const head = model.filter(({ field }) => field === MODEL.irVersion || field === MODEL.opset).map(({ whole }) => whole);
  const fileOf = (last: Uint8Array[]): Bytes => concat(...head, delimited(MODEL.graph, concat(...inside, ...last)));
  return { content: fileOf(stated), measured: fileOf(named), outputs, nodes, constants };
}

/** What is wrong with a public part's file. */
export function bad(problem: string): BadStemError {
  return new BadStemError(`the ONNX file of the public part ${problem}`);
}

function requireOpset(opset: readonly Part[]): void {
  for (const { field, value } of opset) {
    if (field === OPSET.domain && !STANDARD.includes(text(value))) throw bad(`uses operators of ${shown(value)}; only those of the ONNX standard are run`);
    if (field === OPSET.version && !(Number(value) >= OPSETS[0] && Number(value) <= OPSETS[1])) {
      throw bad(`is of opset ${Number(value)}; write it with opset ${OPSETS.join(" to ")}`);
    }
  }
}

function nodeOf(node: readonly Part[], constants: Map<string, Constant>): OpenedNode {
  const texts = (wanted: number): string[] => node.filter(({ field }) => field === wanted).map(({ value }) => text(value));
  const [operators, domains, outputs] = [texts(NODE.operator), texts(NODE.domain), texts(NODE.output)];
  const attributes = node.filter(({ field }) => field === NODE.attribute).map((part) => messageOf(bytesOf(part)));
  attributes.forEach(requireFlat);
  const operator = operators.length === 1 ? operators[0]! : operators.join();
  if (domains.some((name) => !STANDARD.includes(name)) || !OPERATORS.has(operator)) {
    throw bad(`uses ${domains.join().slice(0, 40)}:${operator.slice(0, 40)}; only ordinary arithmetic of the ONNX standard is run, see docs/networks.md`);
  }
  let kernel: number[] = [];
  for (const attribute of attributes) {
    const name = nameOf(attribute, ATTRIBUTE.name);
    const integers = [...integersOf(attribute, ATTRIBUTE.integer), ...integersOf(attribute, ATTRIBUTE.integers)];
    if (POSITIVE.includes(name) && integers.some((each) => each < 1)) throw bad(`has ${name} below 1 (${operator})`);
    if (name === "kernel_shape") kernel = integers;
    if (operator !== "Constant") continue;
    if (attribute.some(({ field }) => field === ATTRIBUTE.text || field === ATTRIBUTE.texts)) throw bad("has a result that is not of numbers; use floating point");
    for (const { field, value } of attribute) if (field === ATTRIBUTE.tensor) constants.set(outputs[0] ?? "", constantOf(value));
  }
  return { operator, inputs: texts(NODE.input), outputs, kernel };
}

function requireFlat(attribute: readonly Part[]): void {
  for (const { field, value } of attribute) {
    if (field === ATTRIBUTE.graph || field === ATTRIBUTE.graphs) throw bad("branches or loops; its work must be known beforehand");
    if (field === ATTRIBUTE.sparse || field === ATTRIBUTE.sparses) throw bad("has sparse or external data; write all weights into the file");
    if (field === ATTRIBUTE.tensor || field === ATTRIBUTE.tensors) constantOf(value);
  }
  if (attribute.filter(({ field }) => field === ATTRIBUTE.tensor).length > 1) throw bad("cannot be read as ONNX"); // protobuf would join them
}

function constantOf(value: Part["value"]): Constant {
  const tensor = messageOf(bytesOf({ value }));
  for (const { field, value } of tensor) {
    if (field === TENSOR.externalData || (field === TENSOR.location && value !== 0)) throw bad("has sparse or external data; write all weights into the file");
    if (field === TENSOR.type && !TYPES.includes(Number(value))) throw bad("has a result that is not of numbers; use floating point");
  }
  const sides = integersOf(tensor, TENSOR.dims);
  if (sides.some((side) => side < 1)) throw bad(`has a result of unknown size (${nameOf(tensor, TENSOR.name).slice(0, 40)}); export it for one sample of fixed shape`);
  return { sides, positive: isPositive(tensor) };
}

/** Whether all values are integers above 0. */
function isPositive(tensor: readonly Part[]): boolean {
  const last = (wanted: number): Part["value"] | undefined => tensor.filter(({ field }) => field === wanted).at(-1)?.value;
  const read = INTEGERS[Number(last(TENSOR.type))];
  if (!read) return false;
  const raw = last(TENSOR.raw);
  const values = [...(raw === undefined ? [] : read(bytesOf({ value: raw }).slice().buffer)), ...integersOf(tensor, TENSOR.int32s), ...integersOf(tensor, TENSOR.int64s)];
  return values.length > 0 && values.every((value) => value > 0);
}

/** The integers of one field, which may stand alone or together. */
function integersOf(message: readonly Part[], wanted: number): number[] {
  const found: number[] = [];
  for (const { field, value } of message) {
    if (field !== wanted) continue;
    if (typeof value === "number") found.push(value);
    else {
      for (let at = 0; at < value.length; ) {
        const next = varintAt(value, at);
        found.push(next.value);
        at = next.end;
      }
    }
  }
  return found.map((value) => (value >= 2 ** 63 ? value - 2 ** 64 : value));
}

function nameOf(message: Pick<Part, "value"> | readonly Part[], wanted: number): string {
  const parts = "value" in message ? messageOf(bytesOf(message)) : message;
  const names = parts.filter(({ field }) => field === wanted);
  return names.length ? text(names.at(-1)!.value) : "";
}

/** The fields of a message in their order. Throws BadStemError where the bytes are none. */
function messageOf(content: Bytes): Part[] {
  const parts: Part[] = [];
  let at = 0;
  const varint = (): number => {
    const { value, end } = varintAt(content, at);
    at = end;
    return value;
  };
  while (at < content.length) {
    const start = at;
    const tag = varint();
    const kind = tag % 8;
    if (tag >= 2 ** 32) throw bad("cannot be read as ONNX"); // other readers would take its lower bits
    let value: number | Bytes = 0;
    if (kind === VARINT) value = varint();
    else {
      const length = kind === DELIMITED ? varint() : FIXED_BYTES[kind];
      if (length === undefined || length > content.length - at) throw bad("cannot be read as ONNX");
      value = content.subarray(at, (at += length));
    }
    parts.push({ field: Math.floor(tag / 8), value, whole: content.subarray(start, at) });
  }
  return parts;
}

function varintAt(content: Bytes, at: number): { value: number; end: number } {
  let value = 0;
  for (let place = 0; place < 10; place++) {
    const byte = content[at + place];
    if (byte === undefined) break;
    value += (byte & 127) * 2 ** (7 * place);
    if (byte < 128) return { value, end: at + place + 1 };
  }
  throw bad("cannot be read as ONNX");
}

function bytesOf({ value }: Pick<Part, "value">): Bytes {
  if (typeof value === "number") throw bad("cannot be read as ONNX");
  return value;
}

function text(value: Part["value"]): string {
  return new TextDecoder().decode(bytesOf({ value }));
}

function shown(value: Part["value"]): string {
  return JSON.stringify(text(value).slice(0, 40));
}

function delimited(field: number, content: Uint8Array): Bytes {
  return concat(varintOf(field * 8 + DELIMITED), varintOf(content.length), content);
}

function varintOf(value: number): Bytes {
  const bytes: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  return Uint8Array.from([...bytes, value]);
}
