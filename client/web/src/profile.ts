/** What the server says of a model, checked: nothing in it may make the client fail later. */

import { answerFields, imageFields } from "./ciphertexts.js";
import { type Field, HEADER_BYTES, payloadBytes } from "./container.js";
import { type InputEncoding, readEncoding } from "./encoding.js";
import { MalformedError } from "./errors.js";
import { ParameterSet } from "./params.js";
import { Members, printable } from "./reading.js";
import { evaluationFields } from "./secret-keys.js";
import { type StemProfile, readStem } from "./stem.js";

const DIGEST = /^[0-9a-f]{64}$/;
const MOST_REFINEMENT = 256;

/** A layer as the progress of a job names it. */
export interface LayerProfile {
  readonly name: string;
  readonly kind: string;
  readonly lookups: number;
}

/** One of several outputs, or an output that is no vector. */
export interface OutputProfile {
  /** Empty for an only output. */
  readonly name: string;
  /** For one sample. */
  readonly shape: readonly number[];
  /** Of its values, beside the scale that all outputs share. */
  readonly factor: number;
  /** What the module does to it at its end; null: nothing. */
  readonly function: string | null;
}

/** What a model says of one input: logits, or those of several outputs by name. */
export type Prediction = Float64Array | Readonly<Record<string, Float64Array>>;

/** All that a client needs to make keys, encode an image and read the answer. */
export interface ModelProfile {
  readonly model: string;
  readonly version: string;
  readonly programDigest: string;
  /** From this package's own registry, by the id that the server names. */
  readonly params: ParameterSet;
  readonly securityBits: number;
  /** Of one input: channels, height and width of an image; channels and length of a series; or the length of a vector. */
  readonly sampleShape: readonly number[];
  /** Of what is encrypted: the input itself, or what the public part makes of it. */
  readonly inputShape: readonly number[];
  readonly inputLevels: number;
  readonly inputDelta: number;
  /** How raw values become integers; null: bytes from 0 to 255, or floats from 0 to 1. */
  readonly inputEncoding: InputEncoding | null;
  /** Whether an input may be a sequence of fewer steps, which the client pads (`Sequence`). */
  readonly inputSequences: boolean;
  /** Names of the values, those of all outputs one after the other. */
  readonly classes: readonly string[];
  /** Null: one vector of logits. */
  readonly outputs: readonly OutputProfile[] | null;
  readonly turnsToLogits: number;
  /** In the exact profile, what every logit is a whole multiple of. */
  readonly logitStep: number | null;
  /** Each value is answered twice: as it is, and so many times as large, modulo one turn; null: once. */
  readonly outputRefinement: number | null;
  /** Look-ups of one image. */
  readonly bootstraps: number;
  readonly layers: readonly LayerProfile[];
  readonly keyBytes: number;
  readonly uploadBytes: number;
  readonly downloadBytes: number;
  readonly maxBatch: number;
  /** The public part, if the model has one. */
  readonly stem: StemProfile | null;
  /** The members that a receipt keeps, as the server sent them. */
  readonly json: unknown;
}

/**
 * Reads a profile.
 *
 * @throws MalformedError it lacks something, says something impossible, or sizes that do not follow from its parameter set.
 * @throws BadStemError what it says of a public part cannot be.
 * @throws UnknownParamsError its parameter set is not in this package's registry.
 */
export async function readProfile(json: unknown): Promise<ModelProfile> {
  const profile = new Members(json, "ModelProfile");
  const side = (value: unknown): number => new Members({ side: value }, "ModelProfile").integer("side", 1, 65535);
  const layer = (value: unknown): LayerProfile => {
    const members = new Members(value, "ModelProfile, layers");
    return { name: members.text("name", 128), kind: members.text("kind", 128), lookups: members.integer("lookups") };
  };
  const output = (value: unknown): OutputProfile => {
    const members = new Members(value, "ModelProfile, outputs");
    return {
      name: members.text("name", 128),
      shape: members.list("shape", 1, 3, side),
      factor: members.number("factor", 1e-12, 1e12),
      function: members.optional("function", (name) => members.text(name, 128)),
    };
  };
  const step = profile.optional("logit_step", (name) => profile.number(name, Number.MIN_VALUE));
  const inputShape = profile.list("input_shape", 1, 3, side);
  const stem = profile.optional("stem", (name) => readStem(profile.object(name), inputShape[0]!));
  const read: ModelProfile = {
    model: profile.matching("model", /^[A-Za-z0-9._-]{1,128}$/), // it becomes part of addresses
    version: profile.text("version", 128),
    programDigest: profile.matching("program_digest", DIGEST),
    params: await ParameterSet.get(profile.matching("params_id", DIGEST)),
    securityBits: profile.number("security_bits"),
    sampleShape: stem?.inputShape ?? inputShape,
    inputShape,
    inputLevels: profile.integer("input_levels", 1, 255),
    inputDelta: profile.number("input_delta", Number.MIN_VALUE, 0.5),
    inputEncoding: profile.optional("input_encoding", (name) => readEncoding(profile.object(name), inputShape[0]!)),
    inputSequences: profile.optional("input_sequences", (name) => profile.flag(name)) ?? false,
    classes: profile.list("classes", 1, 1024, (value) => printable(String(value)).slice(0, 128)),
    outputs: profile.optional("outputs", (name) => profile.list(name, 1, 1024, output)),
    turnsToLogits: profile.number("turns_to_logits"),
    logitStep: step,
    outputRefinement: profile.optional("output_refinement", (name) => profile.integer(name, 2, MOST_REFINEMENT)),
    bootstraps: profile.integer("bootstraps"),
    layers: profile.optional("layers", (name) => profile.list(name, 0, 4096, layer)) ?? [],
    keyBytes: profile.integer("key_bytes"),
    uploadBytes: profile.integer("upload_bytes"),
    downloadBytes: profile.integer("download_bytes", 1),
    maxBatch: profile.integer("max_batch", 1),
    stem,
    json,
  };
  const { outputs } = read;
  if (outputs && outputs.reduce((sum, one) => sum + valuesOf(one.shape), 0) !== read.classes.length) {
    throw new MalformedError(`the outputs of ${read.model} have other values than its ${read.classes.length} classes`);
  }
  if (outputs && new Set(outputs.map((one) => one.name)).size !== outputs.length) {
    throw new MalformedError(`the profile of ${read.model} has two outputs of one name`);
  }
  if (read.inputSequences && (inputShape.length !== 2 || inputShape[0]! < 2 || stem)) {
    throw new MalformedError(`the profile of ${read.model} says sequences, of which its input can be none`);
  }
  if (read.outputRefinement !== null && read.bootstraps > 0) {
    throw new MalformedError(`the profile of ${read.model} refines answers, which have look-ups behind them`);
  }
  const sizes = sizesOf(read.params, valuesOf(read.inputShape), answerValues(read), read.bootstraps === 0);
  for (const name of ["keyBytes", "uploadBytes", "downloadBytes"] as const) {
    if (read[name] !== sizes[name]) {
      throw new MalformedError(`the profile of ${read.model} says ${name} = ${read[name]}; with ${read.params.name} and its shape it is ${sizes[name]}`);
    }
  }
  return read;
}

/** Returns how many values a shape has. */
export function valuesOf(shape: readonly number[]): number {
  return shape.reduce((product, side) => product * side, 1);
}

/** Returns how many values an answer has. */
export function answerValues({ classes, outputRefinement }: Pick<ModelProfile, "classes" | "outputRefinement">): number {
  return classes.length * (outputRefinement === null ? 1 : 2);
}

/** Returns the bytes of the containers that cross the network under a parameter set, for a network without look-ups if `isProduct`. */
export function sizesOf(
  params: ParameterSet, pixels: number, values: number, isProduct: boolean,
): Pick<ModelProfile, "keyBytes" | "uploadBytes" | "downloadBytes"> {
  const nbytes = (fields: readonly Field[]): number => HEADER_BYTES + payloadBytes(fields);
  return {
    keyBytes: nbytes(evaluationFields(params)),
    uploadBytes: nbytes(imageFields(params, pixels, isProduct)),
    downloadBytes: nbytes(answerFields(params, values)),
  };
}

/** Returns decrypted torus values as logits, in the exact profile the whole multiples that they are; those of several outputs by name. */
export function logitsOf(profile: ModelProfile, decrypted: Float64Array): Prediction {
  const { turnsToLogits, logitStep, outputs, outputRefinement } = profile;
  const turns = outputRefinement === null ? decrypted : refined(decrypted, outputRefinement);
  const logits = turns.map((turn) => {
    const logit = turn * turnsToLogits;
    return logitStep === null ? logit : Math.round(logit / logitStep) * logitStep;
  });
  if (!outputs) return logits;
  let start = 0;
  const named = outputs.map(({ name, shape, factor }): [string, Float64Array] => {
    const end = start + valuesOf(shape);
    const values = logits.slice(start, end).map((value) => value * factor);
    start = end;
    return [name, values];
  });
  return outputs.length === 1 && outputs[0]!.name === "" ? named[0]![1] : Object.fromEntries(named);
}

/**
 * Returns values that were answered twice: the second answer has the digits that noise hides in the first, which says how many turns it lacks.
 * Nothing is refused: a client must not react to what it decrypted.
 */
function refined(turns: Float64Array, refinement: number): Float64Array {
  const count = turns.length / 2;
  return turns.slice(0, count).map((coarse, at) => {
    const fine = turns[count + at]!;
    return (fine + Math.round(refinement * coarse - fine)) / refinement;
  });
}
