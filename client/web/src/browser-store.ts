/**
 * Entries in the browser's IndexedDB, readable by pages of this origin alone. Each is encrypted (AES-GCM) under a key that the browser
 * keeps and does not give out: who copies the database's values has nothing.
 */

import { type Bytes, concat, randomBytes, subtle } from "./bytes.js";
import { WrongKeyError } from "./errors.js";
import type { Store } from "./keystore.js";

const ENTRIES = "entries";
const WRAPPING = "wrapping";
const NONCE_BYTES = 12;

/** The store of one origin. */
export class BrowserStore implements Store {
  readonly #name: string;
  #database: Promise<IDBDatabase> | undefined;

  /** @param name of the database; two names are two stores. */
  constructor(name = "ciphershift") {
    this.#name = name;
  }

  async read(name: string): Promise<Uint8Array | undefined> {
    const transaction = (await this.#open()).transaction(ENTRIES);
    const sealed = await done(transaction.objectStore(ENTRIES).get(name) as IDBRequest<Uint8Array | undefined>);
    if (!sealed) return undefined;
    try {
      return new Uint8Array(await subtle().decrypt(options(name, sealed), await this.#key(), sealed.subarray(NONCE_BYTES) as Bytes));
    } catch {
      throw new WrongKeyError(`${name} in this browser's keystore does not open: erase it, new keys are then made`);
    }
  }

  async create(entries: ReadonlyMap<string, Uint8Array>): Promise<boolean> {
    return this.#write(entries, (store, name, sealed) => store.add(sealed, name));
  }

  async replace(name: string, bytes: Uint8Array): Promise<void> {
    await this.#write(new Map([[name, bytes]]), (store, key, sealed) => store.put(sealed, key));
  }

  async remove(prefix: string): Promise<void> {
    const transaction = (await this.#open()).transaction(ENTRIES, "readwrite");
    transaction.objectStore(ENTRIES).delete(IDBKeyRange.bound(prefix, `${prefix}\uffff`));
    await completed(transaction);
  }

  /** Removes the whole store, with the key that its entries are under. */
  async destroy(): Promise<void> {
    (await this.#open()).close();
    this.#database = undefined;
    await done(indexedDB.deleteDatabase(this.#name));
  }

  async #write(
    entries: ReadonlyMap<string, Uint8Array>, write: (store: IDBObjectStore, name: string, sealed: Bytes) => void,
  ): Promise<boolean> {
    const key = await this.#key();
    const sealed = await Promise.all([...entries].map(async ([name, bytes]) => [name, await seal(key, name, bytes)] as const));
    const transaction = (await this.#open()).transaction(ENTRIES, "readwrite");
    sealed.forEach(([name, bytes]) => write(transaction.objectStore(ENTRIES), name, bytes));
    try {
      await completed(transaction);
      return true;
    } catch (error) {
      if (error instanceof DOMException && error.name === "ConstraintError") return false;
      throw error;
    }
  }

  /** The key that the browser keeps: made on first use; of two tabs that make one at once, the first one's stays. */
  async #key(): Promise<CryptoKey> {
    const database = await this.#open();
    const find = (): Promise<CryptoKey | undefined> =>
      done(database.transaction(WRAPPING).objectStore(WRAPPING).get(WRAPPING) as IDBRequest<CryptoKey | undefined>);
    const known = await find();
    if (known) return known;
    const made = await subtle().generateKey({ name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
    const transaction = database.transaction(WRAPPING, "readwrite");
    const adding = transaction.objectStore(WRAPPING).add(made, WRAPPING);
    adding.onerror = (event) => event.preventDefault(); // there is one meanwhile
    await completed(transaction);
    return (await find())!;
  }

  #open(): Promise<IDBDatabase> {
    this.#database ??= new Promise((resolve, reject) => {
      const opening = indexedDB.open(this.#name, 1);
      opening.onupgradeneeded = () => {
        opening.result.createObjectStore(ENTRIES);
        opening.result.createObjectStore(WRAPPING);
      };
      opening.onsuccess = () => {
        opening.result.onversionchange = () => opening.result.close(); // another tab destroys the store
        resolve(opening.result);
      };
      opening.onerror = () => reject(opening.error);
    });
    return this.#database;
  }
}

async function seal(key: CryptoKey, name: string, bytes: Uint8Array): Promise<Bytes> {
  const nonce = randomBytes(NONCE_BYTES);
  return concat(nonce, new Uint8Array(await subtle().encrypt(options(name, nonce), key, bytes as Bytes)));
}

/** The nonce that an entry begins with, and its name, so that entries cannot be exchanged for each other. */
function options(name: string, sealed: Uint8Array): AesGcmParams {
  return { name: "AES-GCM", iv: sealed.slice(0, NONCE_BYTES) as Bytes, additionalData: new TextEncoder().encode(name) };
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function completed(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}
