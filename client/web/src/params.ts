/** Parameter sets: from this package's own registry, never from a server. Lengths are in words or coefficients, noise in log2 of the torus. */

import { sha256, toHex } from "./bytes.js";
import { UnknownParamsError } from "./errors.js";
import { SETS } from "./parameter-sets.js";

/** Decomposition into `levels` signed digits of base 2^`baseLog`, most significant first. */
export interface Gadget {
  readonly baseLog: number;
  readonly levels: number;
}

/** A CKKS ring with a single prime. */
export interface Ring {
  readonly degree: number;
  readonly modulus: number;
  readonly modulusBits: number;
}

/** Bits kept of the words of an input without look-ups, under every set. */
export const PRODUCT_BODY_BITS = 24;
export const PRODUCT_MASK_BITS = 32;

interface GadgetJson {
  base_log: number;
  levels: number;
}

interface RingJson {
  ring_degree: number;
  modulus: number;
}

/** The members of a set's canonical JSON; those that are younger than the first sets may be missing. */
interface Json {
  name: string;
  input_ring: RingJson;
  answer_ring: RingJson;
  lwe_dimension: number;
  lwe_log2_std_dev: number;
  glwe_dimension: number;
  polynomial_size: number;
  glwe_log2_std_dev: number;
  pbs: GadgetJson;
  key_switch: GadgetJson;
  answer: GadgetJson;
  input_body_bits: number;
  bsk_body_bits: number;
  answer_bits: number;
  grouping_factor?: number;
  block_length?: number;
  bodies?: number;
}

/** All that client and server must agree on. */
export class ParameterSet {
  /** SHA-256 of the canonical JSON, in hex. */
  readonly id: string;
  readonly name: string;
  readonly inputRing: Ring;
  readonly answerRing: Ring;
  /** n, the length of the small LWE key. */
  readonly lweDimension: number;
  readonly lweStdDev: number;
  readonly glweDimension: number;
  readonly polynomialSize: number;
  readonly glweStdDev: number;
  readonly pbs: Gadget;
  readonly keySwitch: Gadget;
  readonly answer: Gadget;
  readonly inputBodyBits: number;
  readonly bskBodyBits: number;
  readonly answerBits: number;
  /** Uniform bits of the small key that one step of a bootstrap takes: 1 or 2. */
  readonly groupingFactor: number;
  /** The small key is blocks of so many bits with at most a single one; 1: uniform bits. */
  readonly blockLength: number;
  /** Ciphertexts that share one mask in a look-up, each under keys of its own. */
  readonly bodies: number;

  private constructor(id: string, json: Json) {
    this.id = id;
    this.name = json.name;
    this.inputRing = ring(json.input_ring);
    this.answerRing = ring(json.answer_ring);
    this.lweDimension = json.lwe_dimension;
    this.lweStdDev = 2 ** json.lwe_log2_std_dev;
    this.glweDimension = json.glwe_dimension;
    this.polynomialSize = json.polynomial_size;
    this.glweStdDev = 2 ** json.glwe_log2_std_dev;
    this.pbs = gadget(json.pbs);
    this.keySwitch = gadget(json.key_switch);
    this.answer = gadget(json.answer);
    this.inputBodyBits = json.input_body_bits;
    this.bskBodyBits = json.bsk_body_bits;
    this.answerBits = json.answer_bits;
    this.groupingFactor = json.grouping_factor ?? 1;
    this.blockLength = json.block_length ?? 1;
    this.bodies = json.bodies ?? 1;
  }

  /** All registered sets. */
  static async all(): Promise<ParameterSet[]> {
    const encoder = new TextEncoder();
    return Promise.all(SETS.map(async (text) => new ParameterSet(toHex(await sha256(encoder.encode(text))), JSON.parse(text) as Json)));
  }

  /**
   * Returns the registered set of this name or id.
   *
   * @throws UnknownParamsError none is registered under it.
   */
  static async get(nameOrId: string): Promise<ParameterSet> {
    const sets = await ParameterSet.all();
    const found = sets.find((set) => set.name === nameOrId || set.id === nameOrId);
    if (!found) {
      throw new UnknownParamsError(`no parameter set ${JSON.stringify(nameOrId)}; known are ${sets.map((set) => set.name).join(", ")}`);
    }
    return found;
  }

  /** Dimension k * N of the LWE ciphertexts that look-ups return. */
  get bigDimension(): number {
    return this.glweDimension * this.polynomialSize;
  }

  /** Words of one bootstrapping key entry's bodies. */
  get bodyWords(): number {
    return (this.glweDimension + this.bodies) * this.pbs.levels * this.bodies * this.polynomialSize;
  }

  /** GGSW ciphertexts of the bootstrapping key: one for every bit, or three for every two bits. */
  get bskEntries(): number {
    return (this.lweDimension / this.groupingFactor) * (2 ** this.groupingFactor - 1);
  }

  /** Words of the input secret that have a key switch to the small key: none where the merge key has it. */
  get inputKskWords(): number {
    return this.bodies === 1 ? this.inputRing.degree : 0;
  }

  /** Entries of the merge key, polynomials of N coefficients: the input secret's, then the first GLWE key's; 0 with one body. */
  get mergeEntries(): number {
    return this.bodies === 1 ? 0 : (this.inputRing.degree + this.bigDimension) / this.polynomialSize;
  }

  /** Entries of the split key: the polynomials of every GLWE key but the first. */
  get splitEntries(): number {
    return (this.bodies - 1) * this.glweDimension;
  }

  /** Rows of the answer key: the key switch of the big key, log2 N automorphisms, one public key. */
  get answerKeyRows(): number {
    return (Math.log2(this.answerRing.degree) + 1) * this.answer.levels + 1;
  }

  /** Whether this set is below 128 bits, for tests only. */
  get isToy(): boolean {
    return this.name.startsWith("TOY_");
  }
}

function ring(json: RingJson): Ring {
  return { degree: json.ring_degree, modulus: json.modulus, modulusBits: json.modulus.toString(2).length };
}

function gadget(json: GadgetJson): Gadget {
  return { baseLog: json.base_log, levels: json.levels };
}
