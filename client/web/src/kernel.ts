/**
 * The client's half of the C++ kernel, as functions of arrays. Every instance has a memory of its own, which `erase` overwrites, and
 * imports nothing: randomness comes in as seeds.
 */

import type { Bytes } from "./bytes.js";
import { WrongKeyError } from "./errors.js";
import { CODE } from "./kernel-module.js";
import type { ParameterSet, Ring } from "./params.js";

type Numbers = Int8Array | Uint8Array | Uint32Array | BigUint64Array | Float64Array;
type Maker<T extends Numbers> = { new (buffer: ArrayBuffer, offset: number, length: number): T; readonly BYTES_PER_ELEMENT: number };
type Argument = number | bigint | Numbers;

/** Standard deviation of SEAL's error, which answer keys and uploads carry. */
export const SEAL_STD_DEV = Math.sqrt(10.5);

let compiled: Promise<WebAssembly.Module> | undefined;

/** An array that a function of the kernel fills. */
class Out<T extends Numbers> {
  constructor(
    readonly make: Maker<T>,
    readonly length: number,
  ) {}
}

/** One instance of the kernel. */
export class Kernel {
  readonly #instance: WebAssembly.Instance;
  #erased = false;

  private constructor(instance: WebAssembly.Instance) {
    this.#instance = instance;
    this.#function("_initialize")();
  }

  /** Makes an instance. */
  static async create(): Promise<Kernel> {
    compiled ??= WebAssembly.compile(Uint8Array.from(atob(CODE), (letter) => letter.charCodeAt(0)));
    return new Kernel(await WebAssembly.instantiate(await compiled));
  }

  /** Bytes of its memory. */
  get memoryBytes(): number {
    return this.#buffer.byteLength;
  }

  /** Overwrites all of its memory, and with it every secret that passed through; it cannot be used any more. */
  erase(): void {
    this.#erased = true;
    new Uint8Array(this.#buffer).fill(0);
  }

  /** ChaCha20's key stream (RFC 8439). */
  chacha20(key: Bytes, counter: number, nonce: Uint32Array, blocks: number): Uint32Array {
    return this.#call("chacha20", [key, counter, nonce, blocks], new Out(Uint32Array, 16 * blocks))[0];
  }

  /** Blocks of `length` bits with at most a single one, all patterns alike likely; length 1 gives uniform bits. */
  blockBinary(seed: Bytes, blocks: number, length: number): Int8Array {
    return this.#call("block_binary", [seed, blocks, length], new Out(Int8Array, blocks * length))[0];
  }

  /** Uniform coefficients of -1, 0 and 1. */
  uniformTernary(seed: Bytes, count: number): Int8Array {
    return this.#call("uniform_ternary", [seed, count], new Out(Int8Array, count))[0];
  }

  /**
   * Bodies of a key switch key, params.bodies for each row, from row `firstRow` on of all that share the mask seed. Sources and targets are
   * keys of one length, one after the other, one of each for every body.
   */
  keySwitchKeyBodies(
    sources: Int8Array, targets: Int8Array, params: ParameterSet, stdDev: number, firstRow: number, maskSeed: Bytes, noiseSeed: Bytes,
  ): Uint32Array {
    const { bodies, keySwitch } = params;
    return this.#call(
      "key_switch_key_bodies",
      [
        sources, sources.length / bodies, targets, targets.length / bodies, bodies, keySwitch.baseLog, keySwitch.levels, stdDev,
        firstRow, maskSeed, noiseSeed,
      ],
      new Out(Uint32Array, sources.length * keySwitch.levels),
    )[0];
  }

  /**
   * Bodies of the GGSW ciphertexts of `bits`, entries `firstEntry` and so on of the bootstrapping key, in units of 2^-bskBodyBits. Each
   * entry has a bit for every body; the GLWE keys of all bodies follow each other.
   */
  bootstrappingKeyBodies(
    bits: Int8Array, firstEntry: number, glweKeys: Int8Array, params: ParameterSet, maskSeed: Bytes, noiseSeed: Bytes,
  ): BigUint64Array {
    const entries = bits.length / params.bodies;
    return this.#call(
      "bootstrapping_key_bodies",
      [
        bits, entries, firstEntry, glweKeys, params.glweDimension, params.bodies, params.polynomialSize, params.pbs.baseLog,
        params.pbs.levels, params.glweStdDev, maskSeed, noiseSeed, params.bskBodyBits,
      ],
      new Out(BigUint64Array, entries * params.bodyWords),
    )[0];
  }

  /**
   * Bodies of a ring switch key, entries `firstEntry` and so on of all keys in the look-up ring, in units of 2^-bskBodyBits. An entry has as
   * many parts as there are GLWE keys, and each part a polynomial of N coefficients for each of these.
   */
  ringSwitchKeyBodies(
    sources: Int8Array, firstEntry: number, glweKeys: Int8Array, params: ParameterSet, maskSeed: Bytes, noiseSeed: Bytes,
  ): BigUint64Array {
    const { polynomialSize, pbs } = params;
    const bodies = glweKeys.length / params.bigDimension;
    const entries = sources.length / (bodies ** 2 * polynomialSize);
    return this.#call(
      "ring_switch_key_bodies",
      [
        sources, entries, bodies, firstEntry, glweKeys, params.glweDimension, bodies, polynomialSize, pbs.baseLog, pbs.levels,
        params.glweStdDev, maskSeed, noiseSeed, params.bskBodyBits,
      ],
      new Out(BigUint64Array, sources.length * pbs.levels),
    )[0];
  }

  /** Bodies of the answer key, row by row, in NTT form. */
  answerKeyBodies(bigKey: Int8Array, secret: Int8Array, params: ParameterSet, maskSeed: Bytes, noiseSeed: Bytes): BigUint64Array {
    const { answerRing, answer } = params;
    return this.#call(
      "answer_key_bodies",
      [
        bigKey, bigKey.length, secret, answerRing.degree, BigInt(answerRing.modulus), answer.baseLog, answer.levels, SEAL_STD_DEV,
        maskSeed, noiseSeed,
      ],
      new Out(BigUint64Array, params.answerKeyRows * answerRing.degree),
    )[0];
  }

  /** Encrypts at most `ring.degree` values of the torus: [c0, rounded to `bodyBits`; c1, residues]. */
  encrypt(
    secret: Int8Array, ring: Ring, values: Float64Array, bodyBits: number, maskSeed: Bytes, noiseSeed: Bytes,
  ): [BigUint64Array, BigUint64Array] {
    const [c0, c1] = this.#call(
      "ckks_encrypt",
      [secret, ring.degree, BigInt(ring.modulus), values, values.length, bodyBits, maskSeed, noiseSeed],
      new Out(BigUint64Array, values.length),
      new Out(BigUint64Array, ring.degree),
    );
    return [c0 as BigUint64Array, c1 as BigUint64Array];
  }

  /** Decrypts an answer whose parts are rounded to `bits` of the torus: values in [-1/2, 1/2]. */
  decrypt(secret: Int8Array, ring: Ring, c0: BigUint64Array, c1: BigUint64Array, bits: number): Float64Array {
    return this.#call(
      "ckks_decrypt", [secret, ring.degree, BigInt(ring.modulus), c0, c0.length, c1, bits], new Out(Float64Array, c0.length),
    )[0];
  }

  /** Packs unsigned integers below 2^bits, least significant bit first. */
  packBits(values: BigUint64Array, bits: number): Bytes {
    return this.#call("pack_bits", [values, values.length, bits], new Out(Uint8Array, Math.ceil((values.length * bits) / 8)))[0] as Bytes;
  }

  /** Unpacks what `packBits` packed. */
  unpackBits(data: Uint8Array, count: number, bits: number): BigUint64Array {
    return this.#call("unpack_bits", [data, count, bits], new Out(BigUint64Array, count))[0];
  }

  get #buffer(): ArrayBuffer {
    return (this.#instance.exports["memory"] as WebAssembly.Memory).buffer;
  }

  #function(name: string): (...given: (number | bigint)[]) => number {
    return this.#instance.exports[name] as (...given: (number | bigint)[]) => number;
  }

  /** Calls a function with copies of arrays, and returns copies of those that it fills; what lay between is overwritten. */
  #call<T extends Numbers>(name: string, given: readonly Argument[], ...outs: readonly Out<T>[]): T[] {
    if (this.#erased) {
      throw new WrongKeyError("the secret keys were erased when their client was closed: open them again");
    }
    const places: [number, number][] = [];
    const place = (bytes: number): number => {
      const address = this.#function("allocate")(Math.max(bytes, 8));
      if (!address) throw new RangeError(`the kernel's memory has no room for ${bytes} bytes`);
      new Uint8Array(this.#buffer, address, bytes).fill(0);
      places.push([address, bytes]);
      return address;
    };
    try {
      const inputs = given.map((value) => {
        if (typeof value === "number" || typeof value === "bigint") return value;
        const address = place(value.byteLength);
        new Uint8Array(this.#buffer, address, value.byteLength).set(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
        return address;
      });
      const results = outs.map((out) => place(out.length * out.make.BYTES_PER_ELEMENT));
      this.#function(name)(...inputs, ...results);
      return outs.map((out, at) => new out.make(this.#buffer, results[at]!, out.length).slice() as T);
    } finally {
      for (const [address, bytes] of places) {
        new Uint8Array(this.#buffer, address, bytes).fill(0);
        this.#function("release")(address);
      }
    }
  }
}
