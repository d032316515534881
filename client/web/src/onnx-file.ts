/**
 * What the ONNX file of a public part may hold: the standard's arithmetic, within one file and without branches. A server chose the file, so
 * it is read here before any runtime sees it (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, in protobuf's wire format).
 */

import { type Bytes, concat } from "./bytes.js";
import { BadStemError } from "./errors.js";

const OPSETS = [13, 21] as const; // as in the Python client
const STANDARD = ["", "ai.onnx"];
const RANDOM = ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"];
const MODEL = { graph: 7, opset: 8, training: 20, functions: 25 };
const OPSET = { domain: 1, version: 2 };
const GRAPH = { node: 1, initializer: 5, output: 12, valueInfo: 13, sparse: 15 };
const NODE = { output: 2, operator: 4, attribute: 5, domain: 7 };
const ATTRIBUTE = { tensor: 5, graph: 6, tensors: 10, graphs: 11, sparse: 22, sparses: 23 };
const TENSOR = { externalData: 13, location: 14 };
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

/** A file in which every result is an output, so that a runtime tells the size of each; what the file itself claims of them is left out. */
export interface OpenedFile {
  readonly content: Bytes;
  /** Of the file itself. */
  readonly outputs: readonly string[];
}

/**
 * Reads a file.
 *
 * @throws BadStemError it holds something else than arithmetic, or is no ONNX.
 */
export function openFile(content: Bytes): OpenedFile {
  const model = messageOf(content);
  for (const opset of model.filter(({ field }) => field === MODEL.opset)) requireOpset(messageOf(bytesOf(opset)));
  if (model.some(({ field }) => field === MODEL.functions || field === MODEL.training)) {
    throw bad("defines functions or training steps; write the operators out");
  }
  const graphs = model.filter(({ field }) => field === MODEL.graph);
  if (graphs.length !== 1) throw bad("does not hold one graph");
  const graph = messageOf(bytesOf(graphs[0]!));
  if (graph.some(({ field }) => field === GRAPH.sparse)) throw bad("has sparse or external data; write all weights into the file");
  for (const { field, value } of graph) if (field === GRAPH.initializer) requireInside(value);
  const outputs = graph.filter(({ field }) => field === GRAPH.output).map((part) => nameOf(part));
  const results = graph.filter(({ field }) => field === GRAPH.node).flatMap((node) => resultsOf(messageOf(bytesOf(node))));
  const added = results.filter((name) => !outputs.includes(name)).map((name) => delimited(GRAPH.output, delimited(VALUE_NAME, new TextEncoder().encode(name))));
  const kept = graph.filter(({ field }) => field !== GRAPH.valueInfo).map(({ whole }) => whole);
  const others = model.filter(({ field }) => field !== MODEL.graph).map(({ whole }) => whole);
  return { content: concat(...others, delimited(MODEL.graph, concat(...kept, ...added))), outputs };
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

/** The names of a node's results; none of a constant, which is no larger than the file. */
function resultsOf(node: readonly Part[]): string[] {
  const operators = node.filter(({ field }) => field === NODE.operator).map(({ value }) => text(value));
  const domains = node.filter(({ field }) => field === NODE.domain).map(({ value }) => text(value));
  if (domains.some((name) => !STANDARD.includes(name)) || operators.some((name) => RANDOM.includes(name))) {
    throw bad(`uses ${domains.join().slice(0, 40)}:${operators.join().slice(0, 40)}; only the arithmetic of the ONNX standard is run`);
  }
  for (const { field, value } of node) {
    if (field === NODE.attribute) requireFlat(messageOf(bytesOf({ value })));
  }
  if (operators.join() === "Constant") return [];
  return node.filter(({ field }) => field === NODE.output).map(({ value }) => text(value)).filter(Boolean);
}

function requireFlat(attribute: readonly Part[]): void {
  for (const { field, value } of attribute) {
    if (field === ATTRIBUTE.graph || field === ATTRIBUTE.graphs) throw bad("branches or loops; its work must be known beforehand");
    if (field === ATTRIBUTE.sparse || field === ATTRIBUTE.sparses) throw bad("has sparse or external data; write all weights into the file");
    if (field === ATTRIBUTE.tensor || field === ATTRIBUTE.tensors) requireInside(value);
  }
}

function requireInside(tensor: Part["value"]): void {
  for (const { field, value } of messageOf(bytesOf({ value: tensor }))) {
    if (field === TENSOR.externalData || (field === TENSOR.location && value !== 0)) throw bad("has sparse or external data; write all weights into the file");
  }
}

function nameOf(value: Part): string {
  const names = messageOf(bytesOf(value)).filter(({ field }) => field === VALUE_NAME);
  return names.length ? text(names.at(-1)!.value) : "";
}

/** The fields of a message in their order. Throws BadStemError where the bytes are none. */
function messageOf(content: Bytes): Part[] {
  const parts: Part[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let place = 0; place < 10; place++) {
      const byte = content[at++];
      if (byte === undefined) break;
      value += (byte & 127) * 2 ** (7 * place);
      if (byte < 128) return value;
    }
    throw bad("cannot be read as ONNX");
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
