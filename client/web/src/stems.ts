/** The public part of a client's model: kept in the keystore by its digest, so that it is fetched once, and checked each time that it is opened. */

import { DigestMismatchError } from "./errors.js";
import type { Exchange } from "./exchange.js";
import type { Store } from "./keystore.js";
import type { OnnxRuntime } from "./onnxruntime.js";
import type { ModelProfile } from "./profile.js";
import { Stem, type StemProfile } from "./stem.js";

export class Stems {
  readonly #store: Store;
  readonly #runtime: (() => Promise<OnnxRuntime>) | undefined;
  #last: { readonly said: string; readonly stem: Promise<Stem> } | undefined;

  /** @param runtime gives onnxruntime-web. */
  constructor(store: Store, runtime: (() => Promise<OnnxRuntime>) | undefined) {
    this.#store = store;
    this.#runtime = runtime;
  }

  /** Returns a public part from memory, from the keystore, or from the server. Throws as `Stem.open` does, and what the server says. */
  async opened(exchange: Exchange, profile: ModelProfile, stem: StemProfile): Promise<Stem> {
    const said = JSON.stringify([stem, profile.inputShape]); // the same file may have another range after the owner has converted the model again
    if (this.#last?.said !== said) {
      void this.close();
      this.#last = { said, stem: this.#found(exchange, profile, stem) };
    }
    try {
      return await this.#last!.stem;
    } catch (error) {
      this.#last = undefined;
      throw error;
    }
  }

  /** Frees the runtime's memory. */
  async close(): Promise<void> {
    const last = this.#last;
    this.#last = undefined;
    await (await last?.stem.catch(() => undefined))?.close();
  }

  async #found(exchange: Exchange, profile: ModelProfile, stem: StemProfile): Promise<Stem> {
    const name = `stems/${stem.sha256}.onnx`;
    const open = (content: Uint8Array): Promise<Stem> => Stem.open(content, stem, profile.inputShape, this.#runtime);
    const kept = await this.#store.read(name);
    try {
      if (kept) return await open(kept);
    } catch (error) {
      if (!(error instanceof DigestMismatchError)) throw error; // a damaged copy is fetched again
    }
    const { content } = await exchange.send({ method: "GET", path: `/v2/models/${profile.model}/stem`, answerLimit: stem.bytes });
    const opened = await open(content);
    await this.#store.replace(name, content);
    return opened;
  }
}
