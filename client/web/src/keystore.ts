/**
 * The user's keys at rest: one pair per parameter set, under the names that the Python client's folder has, so that either reads what the
 * other has made.
 *
 *     <params_id>/client.keys       the secret keys, sealed if there is a passphrase
 *     <params_id>/evaluation.keys   what the server gets
 *     jobs/<job_id>.json            what reads the answer of a job; no secret
 *     stems/<sha256>.onnx           public parts of models; no secret
 */

import type { Bytes } from "./bytes.js";
import { Kind, readHeader } from "./container.js";
import { ConfigurationError, LockedKeyError, UnknownParamsError, WrongKeyError, WrongKindError } from "./errors.js";
import type { ParameterSet } from "./params.js";
import { isLocked, lock, unlock } from "./passphrase.js";
import { ClientKeys } from "./secret-keys.js";

/** Named bytes at rest. Names have one slash; what stands before it belongs together. */
export interface Store {
  /** Returns the bytes of this name, or undefined. */
  read(name: string): Promise<Uint8Array | undefined>;
  /** Writes all entries, or none and returns false where there is one of their names already. */
  create(entries: ReadonlyMap<string, Uint8Array>): Promise<boolean>;
  /** Writes one entry, in the place of an old one if there is one. */
  replace(name: string, bytes: Uint8Array): Promise<void>;
  /** Removes every entry whose name begins so. */
  remove(prefix: string): Promise<void>;
}

/** Secret keys, and the evaluation keys that belong to them. */
export interface KeyPair {
  readonly clientKeys: ClientKeys;
  readonly keyId: string;
  /** The container that the server gets, read when it is needed. */
  evaluationKeys(): Promise<Uint8Array>;
}

/** The two files of a pair, byte for byte as the Python client's keystore has them. */
export interface KeyFiles {
  readonly "client.keys": Uint8Array;
  readonly "evaluation.keys": Uint8Array;
}

export interface KeystoreOptions {
  /** Seals the secret keys; those that were made without one are sealed when they are opened. Read each time that it is needed. */
  readonly passphrase?: string;
  /** Gives the passphrase of keys that turn out to be sealed, when none is known. */
  readonly ask?: () => string | undefined | Promise<string | undefined>;
}

/** The key pairs in one store. */
export class Keystore {
  readonly store: Store;
  readonly #options: KeystoreOptions;

  /** @throws ConfigurationError the passphrase is empty. */
  constructor(store: Store = new MemoryStore(), options: KeystoreOptions = {}) {
    if (options.passphrase === "") throw new ConfigurationError("the passphrase is empty: give one, or none to keep the keys without");
    this.store = store;
    this.#options = options;
  }

  /**
   * Returns the pair for a parameter set, made now if there is none.
   *
   * @param observe is told the share of new keys that is made, from 0 to 1.
   * @throws LockedKeyError the secret keys are sealed, and no passphrase is given.
   * @throws WrongPassphraseError they are sealed under another one.
   * @throws WrongKeyError the two files are of two pairs.
   * @throws WireError what rests in the store is damaged.
   */
  async open(params: ParameterSet, observe?: (share: number) => void): Promise<KeyPair> {
    let secret = await this.store.read(names(params).secret);
    if (!secret) {
      await this.#make(params, observe);
      secret = await this.#entry(names(params).secret);
    }
    return this.#load(params, secret);
  }

  /** Whether there is a pair for a parameter set. */
  async has(params: ParameterSet): Promise<boolean> {
    return (await this.store.read(names(params).secret)) !== undefined;
  }

  /** Whether the secret keys of a parameter set are under a passphrase. */
  async isSealed(params: ParameterSet): Promise<boolean> {
    const secret = await this.store.read(names(params).secret);
    return secret !== undefined && isLocked(secret);
  }

  /** Returns the pair's files, as they rest. Whoever has them can read all that was ever encrypted under them. */
  async export(params: ParameterSet): Promise<KeyFiles> {
    return {
      "client.keys": await this.#entry(names(params).secret),
      "evaluation.keys": await this.#entry(names(params).evaluation),
    };
  }

  /**
   * Takes in a pair's files, this package's or the Python client's.
   *
   * @throws WrongKeyError there is another pair already: erase it first; or the files are of two pairs.
   * @throws LockedKeyError, WrongPassphraseError see `open`.
   * @throws WireError, ParameterError, KeyMismatchError the files are damaged, or no pair of this set.
   */
  async import(params: ParameterSet, files: KeyFiles): Promise<void> {
    const secret = files["client.keys"];
    const opened = await this.#opened(params, secret);
    const clientKeys = await ClientKeys.fromBytes(opened, params); // complete and undamaged
    opened.fill(0);
    const header = readHeader(files["evaluation.keys"]);
    if (header.kind !== Kind.EVALUATION_KEYS) throw new WrongKindError("evaluation.keys does not hold evaluation keys");
    if (header.paramsId !== params.id) {
      throw new UnknownParamsError(`evaluation.keys belongs to parameters ${header.paramsId}, wanted is ${params.id}`);
    }
    try {
      clientKeys.requirePair(files["evaluation.keys"]);
    } finally {
      clientKeys.erase();
    }
    const { secret: secretName, evaluation } = names(params);
    const entries = new Map([[secretName, secret], [evaluation, files["evaluation.keys"]]]);
    if (!(await this.store.create(entries))) {
      throw new WrongKeyError(`there are keys of ${params.name} already: export and erase them first`);
    }
  }

  /** Forgets the pair of a parameter set; what was encrypted under it cannot be read any more. */
  async erase(params: ParameterSet): Promise<void> {
    await this.store.remove(`${params.id}/`);
  }

  async #make(params: ParameterSet, observe?: (share: number) => void): Promise<void> {
    const keys = await ClientKeys.generate(params);
    try {
      const evaluation = await keys.evaluationKeys(observe);
      const opened = await keys.toBytes();
      const secret = await this.#atRest(opened, params);
      // Another tab or process may have been faster: its pair is as good.
      await this.store.create(new Map([[names(params).secret, secret], [names(params).evaluation, evaluation.bytes]]));
      opened.fill(0);
    } finally {
      keys.erase();
    }
  }

  async #load(params: ParameterSet, secret: Uint8Array): Promise<KeyPair> {
    const { secret: name, evaluation } = names(params);
    const opened = await this.#opened(params, secret);
    if (!isLocked(secret) && this.#options.passphrase) await this.store.replace(name, await this.#atRest(opened, params));
    const clientKeys = await ClientKeys.fromBytes(opened, params);
    opened.fill(0);
    secret.fill(0);
    const bundle = await this.#entry(evaluation);
    const { keyId } = readHeader(bundle);
    clientKeys.requirePair(bundle);
    return { clientKeys, keyId, evaluationKeys: () => this.#entry(evaluation) };
  }

  async #opened(params: ParameterSet, secret: Uint8Array): Promise<Uint8Array> {
    if (!isLocked(secret)) return secret.slice();
    const given = this.#options.passphrase ?? (await this.#options.ask?.());
    if (!given) throw new LockedKeyError("the secret keys are under a passphrase: give it as `passphrase` or `ask` of the keystore");
    return unlock(secret, params, given);
  }

  async #atRest(data: Bytes | Uint8Array, params: ParameterSet): Promise<Uint8Array> {
    return this.#options.passphrase ? lock(data, params, this.#options.passphrase) : data;
  }

  async #entry(name: string): Promise<Uint8Array> {
    const bytes = await this.store.read(name);
    if (!bytes) throw new WrongKeyError(`there is no ${name} in the keystore: it was erased meanwhile`);
    return bytes;
  }
}

/** Entries in memory: gone with the page or process. */
export class MemoryStore implements Store {
  readonly #entries = new Map<string, Uint8Array>();

  async read(name: string): Promise<Uint8Array | undefined> {
    return this.#entries.get(name)?.slice();
  }

  async create(entries: ReadonlyMap<string, Uint8Array>): Promise<boolean> {
    if ([...entries.keys()].some((name) => this.#entries.has(name))) return false;
    entries.forEach((bytes, name) => this.#entries.set(name, bytes.slice()));
    return true;
  }

  async replace(name: string, bytes: Uint8Array): Promise<void> {
    this.#entries.set(name, bytes.slice());
  }

  async remove(prefix: string): Promise<void> {
    for (const [name, bytes] of this.#entries) {
      if (name.startsWith(prefix)) {
        bytes.fill(0);
        this.#entries.delete(name);
      }
    }
  }
}

function names(params: ParameterSet): { secret: string; evaluation: string } {
  return { secret: `${params.id}/client.keys`, evaluation: `${params.id}/evaluation.keys` };
}
