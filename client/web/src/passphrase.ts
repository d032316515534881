/** Secret keys under a passphrase, as the Python client has them: scrypt makes a key of it, ChaCha20-Poly1305 seals the container. */

import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { scryptAsync } from "@noble/hashes/scrypt.js";

import { type Bytes, concat, fromHex, randomBytes } from "./bytes.js";
import { Kind, pack, readHeader, unpack } from "./container.js";
import { WrongPassphraseError } from "./errors.js";
import type { ParameterSet } from "./params.js";
import { ClientKeys } from "./secret-keys.js";

const SALT_BYTES = 16;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const COST = { N: 2 ** 17, r: 8, p: 1, dkLen: 32 }; // of the format: 128 MB of memory for every guess

/** Returns the container of secret keys sealed under a passphrase, in a container of its own. */
export async function lock(secret: Uint8Array, params: ParameterSet, passphrase: string): Promise<Bytes> {
  const salt = randomBytes(SALT_BYTES);
  const nonce = randomBytes(NONCE_BYTES);
  const sealed = (await cipher(passphrase, salt, nonce, params)).encrypt(secret);
  return pack(Kind.LOCKED_CLIENT_KEYS, params.id, null, concat(salt, nonce, sealed));
}

/**
 * Returns the container that `lock` sealed.
 *
 * @throws WireError, ParameterError, KeyMismatchError see container.unpack.
 * @throws WrongPassphraseError it is another passphrase's, or was forged.
 */
export async function unlock(data: Uint8Array, params: ParameterSet, passphrase: string): Promise<Uint8Array> {
  const payloadBytes = SALT_BYTES + NONCE_BYTES + ClientKeys.nbytes(params) + TAG_BYTES;
  const payload = await unpack(data, { kind: Kind.LOCKED_CLIENT_KEYS, paramsId: params.id, keyId: null, payloadBytes });
  const salt = payload.subarray(0, SALT_BYTES);
  const nonce = payload.subarray(SALT_BYTES, SALT_BYTES + NONCE_BYTES);
  const opened = await cipher(passphrase, salt, nonce, params);
  try {
    return opened.decrypt(payload.subarray(SALT_BYTES + NONCE_BYTES));
  } catch {
    throw new WrongPassphraseError("the passphrase does not open the secret keys: try again");
  }
}

/** Whether the container needs a passphrase. Throws a WireError for what is no container. */
export function isLocked(data: Uint8Array): boolean {
  return readHeader(data).kind === Kind.LOCKED_CLIENT_KEYS;
}

async function cipher(passphrase: string, salt: Uint8Array, nonce: Uint8Array, params: ParameterSet) {
  const key = await scryptAsync(new TextEncoder().encode(passphrase.normalize("NFC")), salt, COST);
  return chacha20poly1305(key, nonce, fromHex(params.id));
}
