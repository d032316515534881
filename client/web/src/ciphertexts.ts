/** The client's CKKS: torus values in, the container of a ciphertext out, and the packed answer back to torus values. */

import { type Bytes, concat, sha256, toHex } from "./bytes.js";
import { type Field, Kind, pack, payloadBytes, unpack, unpackFields } from "./container.js";
import { BadShapeError, NotConformantError, WrongAnswerError } from "./errors.js";
import { type ParameterSet, PRODUCT_BODY_BITS, PRODUCT_MASK_BITS } from "./params.js";
import type { ClientKeys } from "./secret-keys.js";

/** What an answer belongs to, each as a SHA-256 in hex. */
export interface Binding {
  readonly keyId: string;
  readonly request: string; // of the container of the encrypted image
  readonly program: string; // the digest of model, version, layers and weights
}

/**
 * Encrypts values of the torus, one per coefficient, in as many ring elements as they need, and returns the container.
 *
 * @param values in [-1/4, 1/4].
 * @param isProduct whether the network has no look-up: the ciphertext is then one of the answer ring.
 * @throws BadShapeError no values.
 * @throws NotConformantError a value lies outside.
 * @throws WrongKeyError the keys were erased.
 */
export async function encrypt(keys: ClientKeys, keyId: string, values: Float64Array, isProduct = false): Promise<Bytes> {
  const { params } = keys;
  const { degree } = isProduct ? params.answerRing : params.inputRing;
  if (!values.length) throw new BadShapeError("no values cannot be encrypted: give at least one");
  if (!values.every((value) => Math.abs(value) <= 0.25)) {
    throw new NotConformantError("a value lies outside [-1/4, 1/4] of the torus; lower the program's input delta");
  }
  const bodies = new BigUint64Array(values.length);
  const masks = new BigUint64Array(Math.ceil(values.length / degree) * degree);
  for (let start = 0; start < values.length; start += degree) {
    const [c0, c1] = keys.encryptElement(values.slice(start, start + degree), isProduct);
    bodies.set(c0, start);
    masks.set(c1, start);
  }
  const [c0, c1] = imageFields(params, values.length, isProduct);
  const payload = concat(keys.kernel.packBits(bodies, c0!.bits), keys.kernel.packBits(masks, c1!.bits));
  return pack(isProduct ? Kind.PRODUCT_CIPHERTEXT : Kind.CKKS_CIPHERTEXT, params.id, keyId, payload);
}

/** Returns what the answer to an encrypted image is bound to. */
export async function bindingOf(ciphertext: Uint8Array, keyId: string, program: string): Promise<Binding> {
  return { keyId, request: toHex(await sha256(ciphertext)), program };
}

/** The words of an answer that was checked. */
export interface PackedAnswer {
  readonly c0: BigUint64Array;
  readonly c1: BigUint64Array;
}

/**
 * Reads an answer with `messages` logits: what it is, and what it is bound to. Nothing is decrypted.
 *
 * @throws WireError, ParameterError, KeyMismatchError see container.unpack.
 * @throws WrongAnswerError it answers another request, or another version of the model made it.
 * @throws NotConformantError the mask is zero.
 */
export async function readAnswer(keys: ClientKeys, data: Uint8Array, binding: Binding, messages: number): Promise<PackedAnswer> {
  const { params } = keys;
  const fields = answerFields(params, messages);
  const expected = {
    kind: Kind.PACKED_ANSWER, paramsId: params.id, keyId: binding.keyId, payloadBytes: payloadBytes(fields),
  };
  const payload = await unpack(data, expected);
  const [, , c0, c1] = unpackFields(keys.kernel, fields, payload);
  const request = toHex(payload.subarray(0, 32));
  if (request !== binding.request) {
    throw new WrongAnswerError(`the answer belongs to request ${request}, sent was ${binding.request}`);
  }
  const program = toHex(payload.subarray(32, 64));
  if (program !== binding.program) {
    throw new WrongAnswerError(
      `program ${program} made the answer, the profile names ${binding.program}: the model was changed meanwhile, read its profile again`,
    );
  }
  if (c1!.every((word) => word === 0n)) throw new NotConformantError("the ciphertext's mask is zero: nothing is encrypted");
  return { c0: c0!, c1: c1! };
}

/** Decrypts an answer to values of the torus in [-1/2, 1/2]. Throws WrongKeyError if the keys were erased. */
export function decrypt(keys: ClientKeys, { c0, c1 }: PackedAnswer): Float64Array {
  return keys.decryptAnswer(c0, c1);
}

/** The fields of an encrypted image, or other input, of a network with look-ups or without. */
export function imageFields(params: ParameterSet, messages: number, isProduct: boolean): Field[] {
  const { degree, modulusBits } = isProduct ? params.answerRing : params.inputRing;
  return [
    { name: "c0", count: messages, bits: isProduct ? PRODUCT_BODY_BITS : params.inputBodyBits },
    { name: "c1", count: Math.ceil(messages / degree) * degree, bits: isProduct ? PRODUCT_MASK_BITS : modulusBits },
  ];
}

/** The fields of an answer. */
export function answerFields(params: ParameterSet, messages: number): Field[] {
  return [
    { name: "request", count: 32, bits: 8 },
    { name: "program", count: 32, bits: 8 },
    { name: "c0", count: messages, bits: params.answerBits },
    { name: "c1", count: params.answerRing.degree, bits: params.answerBits },
  ];
}
