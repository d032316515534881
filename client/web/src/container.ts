/**
 * The one binary container for everything that crosses a border or rests in a store (docs/format.md), and its fields.
 *
 * Checks run in this order, each with an error of its own: length limit, magic, header, version, kind, params_id, key_id, length,
 * whole payload, digest, own name; then the padding of each field.
 */

import { type Bytes, concat, equal, fromHex, sha256, toHex } from "./bytes.js";
import {
  BadMagicError, DigestMismatchError, MalformedError, SecretKeyOnServerError, TooLargeError, UnsupportedVersionError, WrongKeyError,
  WrongKindError, WrongLengthError, WrongParamsError,
} from "./errors.js";
import type { Kernel } from "./kernel.js";

export const VERSION = 1;
export const HEADER_BYTES = 112;
const MAGIC = [0x43, 0x53, 0x46, 0x54]; // CSFT
const PREFIX_BYTES = 80;

/** What a container holds. */
export const Kind = {
  EVALUATION_KEYS: 1,
  CKKS_CIPHERTEXT: 2,
  PACKED_ANSWER: 3,
  CLIENT_KEYS: 4, // secret: rests in a keystore, refused everywhere else
  LOCKED_CLIENT_KEYS: 5, // the same, sealed under a passphrase
  PRODUCT_CIPHERTEXT: 6, // an input that is multiplied by weights, without a look-up
} as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

/** The fixed header of a container; ids are lower-case hex. */
export interface Header {
  readonly kind: Kind;
  readonly paramsId: string;
  readonly keyId: string;
  readonly length: number;
  readonly prefix: Uint8Array;
  readonly digest: Uint8Array;
}

/** A run of `count` unsigned integers of `bits` bits each, padded with zero bits to a whole byte. */
export interface Field {
  readonly name: string;
  readonly count: number;
  readonly bits: number;
}

/** Wraps a payload; `keyId` null lets the payload name itself, as keys do. */
export async function pack(kind: Kind, paramsId: string, keyId: string | null, payload: Uint8Array): Promise<Bytes> {
  const data = new Uint8Array(HEADER_BYTES + payload.length);
  data.set(payload, HEADER_BYTES);
  await seal(data, kind, paramsId, keyId);
  return data;
}

/** Writes the header of a container whose payload is in place already, and returns its key id. */
export async function seal(data: Bytes, kind: Kind, paramsId: string, keyId: string | null): Promise<string> {
  const ownId = await sha256(data.subarray(HEADER_BYTES));
  const named = keyId === null ? ownId : fromHex(keyId);
  const view = new DataView(data.buffer, data.byteOffset);
  data.set(MAGIC, 0);
  view.setUint16(4, VERSION, true);
  view.setUint16(6, kind, true);
  data.set(fromHex(paramsId), 8);
  data.set(named, 40);
  view.setBigUint64(72, BigInt(data.length - HEADER_BYTES), true);
  data.set(await sha256(concat(data.subarray(0, PREFIX_BYTES), ownId)), PREFIX_BYTES);
  return toHex(named);
}

/**
 * Reads and checks the header alone.
 *
 * @throws BadMagicError, MalformedError, UnsupportedVersionError, WrongKindError in this order.
 */
export function readHeader(data: Uint8Array): Header {
  if (!equal(data.subarray(0, 4), Uint8Array.from(MAGIC))) {
    throw new BadMagicError("the data does not begin with CSFT: it is not a container of this project");
  }
  if (data.length < HEADER_BYTES) {
    throw new MalformedError(`the data ends after ${data.length} bytes, the header alone has ${HEADER_BYTES}`);
  }
  const view = new DataView(data.buffer, data.byteOffset, HEADER_BYTES);
  const version = view.getUint16(4, true);
  if (version !== VERSION) {
    throw new UnsupportedVersionError(`the container has format version ${version}, this release reads ${VERSION}`);
  }
  const kind = view.getUint16(6, true);
  if (nameOf(kind) === undefined) {
    throw new WrongKindError(`the container holds kind ${kind}, which is none of ${Object.keys(Kind).join(", ")}`);
  }
  return {
    kind: kind as Kind,
    paramsId: toHex(data.subarray(8, 40)),
    keyId: toHex(data.subarray(40, 72)),
    length: Number(view.getBigUint64(72, true)),
    prefix: data.slice(0, PREFIX_BYTES),
    digest: data.slice(PREFIX_BYTES, HEADER_BYTES),
  };
}

/** What a container is expected to be; `keyId` null accepts the name that the payload gives itself, which is then verified. */
export interface Expected {
  readonly kind: Kind;
  readonly paramsId: string;
  readonly keyId: string | null;
  readonly payloadBytes: number;
}

/**
 * Checks a container and returns its payload, without a copy.
 *
 * @throws WireError, ParameterError, KeyMismatchError the first check that fails.
 */
export async function unpack(data: Uint8Array, expected: Expected): Promise<Uint8Array> {
  const what = nameOf(expected.kind);
  const { payloadBytes } = expected;
  if (data.length > HEADER_BYTES + payloadBytes) {
    throw new TooLargeError(`${data.length} bytes arrived, a ${what} has ${HEADER_BYTES + payloadBytes}`);
  }
  const header = readHeader(data);
  checkHeader(header, expected);
  const payload = data.subarray(HEADER_BYTES);
  if (payload.length !== header.length) {
    throw new MalformedError(`the payload ends after ${payload.length} bytes, the header promises ${header.length}`);
  }
  const ownId = await sha256(payload);
  if (!equal(await sha256(concat(header.prefix, ownId)), header.digest)) {
    throw new DigestMismatchError(`the ${what} does not match its digest: it was damaged, send it again`);
  }
  if (expected.keyId === null && header.keyId !== toHex(ownId)) {
    throw new WrongKeyError(`the ${what} calls itself ${header.keyId}, its payload is ${toHex(ownId)}`);
  }
  return payload;
}

function checkHeader(header: Header, expected: Expected): void {
  const what = nameOf(expected.kind);
  if (header.kind !== expected.kind) {
    if (header.kind === Kind.CLIENT_KEYS || header.kind === Kind.LOCKED_CLIENT_KEYS) {
      throw new SecretKeyOnServerError("the container holds secret keys; send the evaluation keys instead");
    }
    throw new WrongKindError(`the container holds ${nameOf(header.kind)}, wanted is ${what}`);
  }
  if (header.paramsId !== expected.paramsId) {
    throw new WrongParamsError(`the ${what} was made under parameters ${header.paramsId}, wanted is ${expected.paramsId}`);
  }
  if (expected.keyId !== null && header.keyId !== expected.keyId) {
    throw new WrongKeyError(`the ${what} belongs to key ${header.keyId}, wanted is ${expected.keyId}`);
  }
  if (header.length !== expected.payloadBytes) {
    throw new WrongLengthError(`the ${what} has ${header.length} payload bytes, its parameters need ${expected.payloadBytes}`);
  }
}

/** Returns the bytes that a field takes in a payload. */
export function fieldBytes(field: Field): number {
  return Math.ceil((field.count * field.bits) / 8);
}

/** Returns the exact length of a payload made of these fields. */
export function payloadBytes(fields: readonly Field[]): number {
  return fields.reduce((sum, field) => sum + fieldBytes(field), 0);
}

/**
 * Reads the fields of a payload that `unpack` has checked.
 *
 * @throws MalformedError a padding bit is set.
 */
export function unpackFields(kernel: Kernel, fields: readonly Field[], payload: Uint8Array): BigUint64Array[] {
  let at = 0;
  return fields.map((field) => {
    const data = payload.subarray(at, (at += fieldBytes(field)));
    const padding = 8 * data.length - field.count * field.bits;
    if (data.length && data[data.length - 1]! >> (8 - padding)) {
      throw new MalformedError("the padding bits at the end of a field are not zero");
    }
    return kernel.unpackBits(data, field.count, field.bits);
  });
}

function nameOf(kind: number): string | undefined {
  return Object.entries(Kind).find(([, value]) => value === kind)?.[0];
}
