/** Secret keys: made, kept and used on the client only. Every seed is fresh from the platform's generator. */

import { type Bytes, freshSeed } from "./bytes.js";
import { type Field, HEADER_BYTES, Kind, pack, payloadBytes, seal, unpack, unpackFields } from "./container.js";
import { NotConformantError, WrongKeyError } from "./errors.js";
import { Kernel } from "./kernel.js";
import { type ParameterSet, PRODUCT_BODY_BITS, PRODUCT_MASK_BITS } from "./params.js";

const SEED_BYTES = 32;
const PAIR_COEFFICIENTS = 16;
const ENTRIES_AT_ONCE = 16; // GGSW ciphertexts between two chances for the page to draw itself; each has whole bytes

interface Secrets {
  readonly inputSecret: Int8Array; // ternary, input ring
  readonly answerSecret: Int8Array; // ternary, answer ring
  readonly smallLweKey: Int8Array; // binary, n for each body
  readonly glweKey: Int8Array; // binary, k * N for each body; it is the big LWE keys, too: results of look-ups are under the first
}

/** Evaluation keys in their container, and their id. */
export interface EvaluationKeys {
  readonly keyId: string;
  readonly bytes: Bytes;
}

/** The four secrets of one client. They are private to the object: it can be printed, and shows none. */
export class ClientKeys {
  readonly params: ParameterSet;
  readonly #kernel: Kernel;
  readonly #secrets: Secrets;

  private constructor(params: ParameterSet, kernel: Kernel, secrets: Secrets) {
    this.params = params;
    this.#kernel = kernel;
    this.#secrets = secrets;
  }

  /** Draws fresh keys. */
  static async generate(params: ParameterSet): Promise<ClientKeys> {
    const kernel = await Kernel.create();
    return new ClientKeys(params, kernel, {
      inputSecret: kernel.uniformTernary(freshSeed(), params.inputRing.degree),
      answerSecret: kernel.uniformTernary(freshSeed(), params.answerRing.degree),
      smallLweKey: kernel.blockBinary(freshSeed(), (params.bodies * params.lweDimension) / params.blockLength, params.blockLength),
      glweKey: kernel.blockBinary(freshSeed(), params.bodies * params.bigDimension, 1),
    });
  }

  /** Bytes of the container of the secrets. */
  static nbytes(params: ParameterSet): number {
    return HEADER_BYTES + payloadBytes(secretFields(params));
  }

  /**
   * Reads what `toBytes` wrote.
   *
   * @throws WireError, ParameterError, KeyMismatchError see container.unpack.
   * @throws NotConformantError a coefficient is not what its key allows.
   */
  static async fromBytes(data: Uint8Array, params: ParameterSet): Promise<ClientKeys> {
    const fields = secretFields(params);
    const expected = { kind: Kind.CLIENT_KEYS, paramsId: params.id, keyId: null, payloadBytes: payloadBytes(fields) };
    const payload = await unpack(data, expected);
    const kernel = await Kernel.create();
    const [inputSecret, answerSecret, smallLweKey, glweKey] = unpackFields(kernel, fields, payload).map((values, at) => {
      const key = Int8Array.from(values, (value) => Number(value) - 1);
      const least = at < 2 ? -1 : 0; // ternary, ternary, binary, binary
      if (key.some((coefficient) => coefficient < least || coefficient > 1)) {
        throw new NotConformantError(`${fields[at]!.name} holds a coefficient that it may not; the key file is damaged, make new keys`);
      }
      return key;
    }) as [Int8Array, Int8Array, Int8Array, Int8Array];
    for (let at = 0; at < smallLweKey.length; at += params.blockLength) {
      if (smallLweKey.subarray(at, at + params.blockLength).filter((bit) => bit).length > 1) {
        throw new NotConformantError(
          `small_lwe_key has a block of ${params.blockLength} bits with more than a single one; the key file is damaged, make new keys`,
        );
      }
    }
    return new ClientKeys(params, kernel, { inputSecret, answerSecret, smallLweKey, glweKey });
  }

  /** Returns the secrets in their container, for a keystore only. */
  async toBytes(): Promise<Bytes> {
    const { inputSecret, answerSecret, smallLweKey, glweKey } = this.#secrets;
    const parts = [inputSecret, answerSecret, smallLweKey, glweKey].map((key) =>
      this.#kernel.packBits(BigUint64Array.from(key, (coefficient) => BigInt(coefficient + 1)), 2),
    );
    const payload = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      payload.set(part, at);
      at += part.length;
      part.fill(0);
    }
    const data = await pack(Kind.CLIENT_KEYS, this.params.id, null, payload);
    payload.fill(0);
    return data;
  }

  /**
   * Encrypts each secret under the next; fresh masks and noise at every call.
   *
   * @param observe is told the share that is done, from 0 to 1; between two calls the page can draw itself.
   */
  async evaluationKeys(observe: (share: number) => void = () => {}): Promise<EvaluationKeys> {
    const { params } = this;
    const kernel = this.#kernel;
    const { inputSecret, answerSecret, smallLweKey, glweKey } = this.#secrets;
    const fields = evaluationFields(params);
    const data = new Uint8Array(HEADER_BYTES + payloadBytes(fields));
    let at = HEADER_BYTES;
    const write = (part: Uint8Array): void => {
      data.set(part, at);
      at += part.length;
    };
    const maskSeed = freshSeed();
    write(maskSeed);
    let firstRow = 0;
    for (const sources of [inputSecret.subarray(0, params.inputKskWords), glweKey]) {
      const words = kernel.keySwitchKeyBodies(sources, smallLweKey, params, params.lweStdDev, firstRow, maskSeed, freshSeed());
      write(new Uint8Array(words.buffer));
      firstRow += words.length / params.bodies;
      await breathe();
    }
    const bits = bootstrappedBits(params, smallLweKey);
    const noiseSeed = freshSeed();
    for (let entry = 0; entry < params.bskEntries; entry += ENTRIES_AT_ONCE) {
      const some = bits.subarray(entry * params.bodies, (entry + ENTRIES_AT_ONCE) * params.bodies);
      write(kernel.packBits(kernel.bootstrappingKeyBodies(some, entry, glweKey, params, maskSeed, noiseSeed), params.bskBodyBits));
      observe(Math.min(1, (entry + ENTRIES_AT_ONCE) / params.bskEntries));
      await breathe();
    }
    const merged = mergeSources(params, inputSecret, glweKey);
    const [firstKey, otherKeys] = [glweKey.subarray(0, params.bigDimension), glweKey.subarray(params.bigDimension)];
    write(this.#ringSwitchKey(merged, params.bskEntries, glweKey, maskSeed));
    write(this.#ringSwitchKey(otherKeys, params.bskEntries + params.mergeEntries, firstKey, maskSeed));
    bits.fill(0);
    merged.fill(0);
    const answerKey = kernel.answerKeyBodies(firstKey, answerSecret, params, maskSeed, freshSeed());
    write(kernel.packBits(answerKey, params.answerRing.modulusBits));
    return { keyId: await seal(data, Kind.EVALUATION_KEYS, params.id, null), bytes: data };
  }

  /** Encrypts values of the torus into one element of the input ring, or of the answer ring; [c0, c1] as a ciphertext's fields have them. */
  encryptElement(values: Float64Array, isProduct: boolean): [BigUint64Array, BigUint64Array] {
    const { inputRing, answerRing, inputBodyBits } = this.params;
    const { inputSecret, answerSecret } = this.#secrets;
    if (!isProduct) return this.#kernel.encrypt(inputSecret, inputRing, values, inputBodyBits, freshSeed(), freshSeed());
    const [c0, c1] = this.#kernel.encrypt(answerSecret, answerRing, values, PRODUCT_BODY_BITS, freshSeed(), freshSeed());
    const [modulus, shift] = [BigInt(answerRing.modulus), BigInt(PRODUCT_MASK_BITS)];
    return [c0, c1.map((word) => BigInt.asUintN(PRODUCT_MASK_BITS, ((word << shift) + modulus / 2n) / modulus))];
  }

  /** Decrypts the parts of an answer to values of the torus in [-1/2, 1/2], multiples of 2^-answerBits. */
  decryptAnswer(c0: BigUint64Array, c1: BigUint64Array): Float64Array {
    return this.#kernel.decrypt(this.#secrets.answerSecret, this.params.answerRing, c0, c1, this.params.answerBits);
  }

  /**
   * Refuses evaluation keys that were made from other secret keys: the first rows of the bundle's first key switch key are made again from its
   * public seed, without noise, and what is left must be noise.
   *
   * @throws WrongKeyError they belong to other secrets, or the bundle is cut short.
   */
  requirePair(bundle: Uint8Array): void {
    const { params } = this;
    const { inputSecret, smallLweKey, glweKey } = this.#secrets;
    const maskSeed = bundle.slice(HEADER_BYTES, HEADER_BYTES + SEED_BYTES) as Bytes;
    const bytes = 4 * PAIR_COEFFICIENTS * params.keySwitch.levels * params.bodies;
    const given = bundle.slice(HEADER_BYTES + SEED_BYTES, HEADER_BYTES + SEED_BYTES + bytes);
    if (given.length === bytes) {
      const some = firstCoefficients(params.inputKskWords ? inputSecret : glweKey, params.bodies);
      const bodies = this.#kernel.keySwitchKeyBodies(some, smallLweKey, params, 0, 0, maskSeed, new Uint8Array(SEED_BYTES));
      some.fill(0);
      const noise = Array.from(new Uint32Array(given.buffer), (body, at) => (body - bodies[at]!) | 0); // modulo 2^32
      const deviation = Math.sqrt(noise.reduce((sum, each) => sum + each ** 2, 0) / noise.length) / 2 ** 32;
      if (deviation < 8 * params.lweStdDev) return;
    }
    throw new WrongKeyError("client.keys and evaluation.keys belong to two different pairs: take both files of one pair, or erase them to make new keys");
  }

  /** Merge key or split key as its field has it, see Kernel.ringSwitchKeyBodies; no bytes for no sources. */
  #ringSwitchKey(sources: Int8Array, firstEntry: number, glweKeys: Int8Array, maskSeed: Bytes): Bytes {
    const words = this.#kernel.ringSwitchKeyBodies(sources, firstEntry, glweKeys, this.params, maskSeed, freshSeed());
    return this.#kernel.packBits(words, this.params.bskBodyBits);
  }

  /** The kernel that works for these keys. */
  get kernel(): Kernel {
    return this.#kernel;
  }

  /** Overwrites the secrets, here and in the kernel's memory; the keys cannot be used any more. */
  erase(): void {
    Object.values(this.#secrets).forEach((secret: Int8Array) => secret.fill(0));
    this.#kernel.erase();
  }
}

function secretFields(params: ParameterSet): Field[] {
  return [
    { name: "input_secret", count: params.inputRing.degree, bits: 2 },
    { name: "answer_secret", count: params.answerRing.degree, bits: 2 },
    { name: "small_lwe_key", count: params.bodies * params.lweDimension, bits: 2 },
    { name: "glwe_key", count: params.bodies * params.bigDimension, bits: 2 },
  ];
}

/** The fields of a bundle of evaluation keys. */
export function evaluationFields(params: ParameterSet): Field[] {
  const { keySwitch, pbs, bodies, polynomialSize } = params;
  const part = pbs.levels * polynomialSize; // words of one part of an entry, for each body
  return [
    { name: "mask_seed", count: 32, bits: 8 },
    { name: "input_ksk", count: params.inputKskWords * keySwitch.levels, bits: 32 },
    { name: "ksk", count: params.bigDimension * keySwitch.levels * bodies, bits: 32 },
    { name: "bsk", count: params.bskEntries * params.bodyWords, bits: params.bskBodyBits },
    { name: "merge_key", count: params.mergeEntries * bodies ** 2 * part, bits: params.bskBodyBits },
    { name: "split_key", count: params.splitEntries * part, bits: params.bskBodyBits },
    { name: "answer_key", count: params.answerKeyRows * params.answerRing.degree, bits: params.answerRing.modulusBits },
  ];
}

/** What the merge key brings to each body, [entries, bodies, bodies, N]: the value for one body leaves the others as they are. */
function mergeSources(params: ParameterSet, inputSecret: Int8Array, glweKey: Int8Array): Int8Array {
  const { bodies, polynomialSize: size, mergeEntries } = params;
  const sources = new Int8Array(mergeEntries * bodies ** 2 * size);
  for (let entry = 0; entry < mergeEntries; entry++) {
    const start = entry * size - inputSecret.length; // the first GLWE key follows the input secret
    const source = start < 0 ? inputSecret.subarray(entry * size, (entry + 1) * size) : glweKey.subarray(start, start + size);
    for (let body = 0; body < bodies; body++) sources.set(source, ((entry * bodies + body) * bodies + body) * size);
  }
  return sources;
}

/** The first coefficients of the key of each body, one key after the other. */
function firstCoefficients(keys: Int8Array, bodies: number): Int8Array {
  const some = new Int8Array(bodies * PAIR_COEFFICIENTS);
  for (let body = 0; body < bodies; body++) {
    const start = (body * keys.length) / bodies;
    some.set(keys.subarray(start, start + PAIR_COEFFICIENTS), body * PAIR_COEFFICIENTS);
  }
  return some;
}

/** What the bootstrapping key encrypts, entry by entry a bit for each body: the small key's bits, or those of bitsOfPairs. */
function bootstrappedBits(params: ParameterSet, keys: Int8Array): Int8Array {
  const bits = new Int8Array(params.bskEntries * params.bodies);
  for (let body = 0; body < params.bodies; body++) {
    const key = keys.subarray(body * params.lweDimension, (body + 1) * params.lweDimension);
    (params.groupingFactor === 1 ? key : bitsOfPairs(key)).forEach((bit, entry) => (bits[entry * params.bodies + body] = bit));
  }
  return bits;
}

/** s (1 - t), (1 - s) t and s t for every pair of bits s, t. */
function bitsOfPairs(key: Int8Array): Int8Array {
  const bits = new Int8Array((key.length / 2) * 3);
  for (let pair = 0; 2 * pair < key.length; pair++) {
    const [s, t] = [key[2 * pair]!, key[2 * pair + 1]!];
    bits.set([s * (1 - t), (1 - s) * t, s * t], 3 * pair);
  }
  return bits;
}

/** Lets the event loop do what waits; a timer would be slowed down in a tab that nobody looks at. */
function breathe(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

