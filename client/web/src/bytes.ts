/** Bytes as they come and go: hex, little-endian integers, digests and seeds. */

import { InsecureTransportError } from "./errors.js";

export type Bytes = Uint8Array<ArrayBuffer>;

/** Returns bytes as lower-case hex. */
export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Returns the bytes that hex digits stand for. */
export function fromHex(text: string): Bytes {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** Returns arrays one after the other. */
export function concat(...parts: readonly Uint8Array[]): Bytes {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** Whether two arrays hold the same bytes. */
export function equal(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}

/** Returns the SHA-256 of bytes. */
export async function sha256(bytes: Uint8Array): Promise<Bytes> {
  return new Uint8Array(await subtle().digest("SHA-256", bytes as Bytes));
}

/** Returns a fresh seed of 32 bytes from the platform's generator. */
export function freshSeed(): Bytes {
  return randomBytes(32);
}

/** Returns fresh bytes from the platform's generator. */
export function randomBytes(count: number): Bytes {
  return crypto.getRandomValues(new Uint8Array(count));
}

/**
 * Returns the platform's cryptography.
 *
 * @throws InsecureTransportError the page came over plain http, where browsers give none; nothing would protect its code either.
 */
export function subtle(): SubtleCrypto {
  if (!globalThis.crypto?.subtle) {
    throw new InsecureTransportError("this page came over plain http, where a browser offers no cryptography: serve it over https");
  }
  return crypto.subtle;
}
