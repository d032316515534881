/**
 * The client: keys, encryption, requests, decryption. Nothing that is sent depends on anything that was decrypted, nor on whether it
 * could be: answers are decrypted when all have arrived, and no request follows. Only a public part of an answer, the digest of the model
 * that made it, can make the client ask again.
 */

import { BrowserStore } from "./browser-store.js";
import type { Bytes } from "./bytes.js";
import { type PackedAnswer, bindingOf, decrypt, encrypt, readAnswer } from "./ciphertexts.js";
import {
  BadShapeError, ClosedError, InsecureParamsError, ModelChangedError, RefusedParamsError, UnknownKeyError, UnknownModelError, WrongAnswerError,
  WrongKeyError,
} from "./errors.js";
import { Exchange } from "./exchange.js";
import { type Input, toLevels, toUnit } from "./images.js";
import { MOST_EXAMPLES, type ModelInputs, readInputs } from "./inputs.js";
import { Job, fetchAnswer, told } from "./job.js";
import { type JobStatus, follow, jobPath, readStatus, statusOf } from "./jobs.js";
import { type KeyPair, Keystore, MemoryStore } from "./keystore.js";
import { type ConnectOptions, type RunOptions, type Timings, type Traffic, noTime } from "./options.js";
import { type ModelProfile, type Prediction, answerValues, logitsOf, readProfile, valuesOf } from "./profile.js";
import { parseAnswer, parseModels, submitCall } from "./protocol.js";
import { Members } from "./reading.js";
import { type Receipt, keepReceipt } from "./receipts.js";
import { Stems } from "./stems.js";
import { type Answer, Transport } from "./transport.js";

const JOBS_AHEAD = 2; // while one is computed, the next one waits: the server never waits for the client

/** Encrypted predictions from a server. */
export class Client {
  /** Of the last prediction. */
  timings: Timings = noTime();
  /** Of the last job. */
  traffic: Traffic = { sent: 0, received: 0, ciphertexts: [] };
  readonly keystore: Keystore;
  #profile: ModelProfile;
  readonly #options: ConnectOptions;
  #connection: Exchange | undefined; // none once it is closed
  readonly #keys = new Map<string, Promise<KeyPair>>(); // by the parameter set's id
  readonly #stems: Stems;
  readonly #uploaded = new Set<string>(); // ids of keys that the server has had

  private constructor(exchange: Exchange, profile: ModelProfile, options: ConnectOptions) {
    this.#connection = exchange;
    this.#profile = profile;
    this.#options = options;
    this.keystore = options.keystore ?? new Keystore(typeof indexedDB === "undefined" ? new MemoryStore() : new BrowserStore());
    this.#stems = new Stems(this.keystore.store, options.onnxruntime);
  }

  /** What the server says of the model; read again when an answer shows that the server has another version of it. */
  get profile(): ModelProfile {
    return this.#profile;
  }

  /**
   * Asks a server for the model's profile. Keys are made when they are first needed.
   *
   * @throws UnknownModelError no such model, or several and none was named.
   * @throws UnknownParamsError the model's parameter set is not in this package's registry.
   * @throws InsecureParamsError, RefusedParamsError the parameter set is a TOY set, or of a kind that is not to be accepted.
   * @throws CiphershiftError its subclass says what to change.
   */
  static async connect(url: string, options: ConnectOptions = {}): Promise<Client> {
    const exchange = exchangeOf(url, options);
    const name = options.model ?? (await onlyModel(exchange));
    return new Client(exchange, await profileOf(exchange, name, options), options);
  }

  /** Asks a server for the names of its models. Throws as `connect` does. */
  static async models(url: string, options: ConnectOptions = {}): Promise<string[]> {
    return modelsOf(exchangeOf(url, options));
  }

  /** Asks for the names of the models that are served. */
  async models(): Promise<string[]> {
    return modelsOf(this.#exchange);
  }

  /** Asks what people who make inputs of this model may want to know: what images are, and examples. */
  async inputs(): Promise<ModelInputs> {
    const answerLimit = Math.min(MOST_EXAMPLES * (24 * valuesOf(this.profile.sampleShape) + 1024), 16 << 20);
    const answer = await this.#exchange.send({ method: "GET", path: `/v2/models/${this.profile.model}/inputs`, answerLimit });
    return readInputs(answer.content, this.profile);
  }

  /** Makes keys and uploads the evaluation keys where they are missing; returns their id. */
  async prepare(options: RunOptions = {}): Promise<string> {
    return (await this.#prepared(this.profile, options)).keyId;
  }

  /**
   * Returns logits; of a model with several outputs, logits by name: `predict<Record<string, Float64Array>>(image)`. The server sees
   * ciphertexts alone.
   *
   * @param images one image or other input, which gives one row of logits, or several, which give as many. Of a model that takes sequences,
   *   `{ steps, values }` is padded here.
   * @throws CanceledError the signal was aborted.
   * @throws WrongAnswerError the model was changed twice meanwhile, or the server mixes up its answers.
   * @throws CiphershiftError its subclass says what to change.
   */
  async predict<P extends Prediction = Float64Array>(images: Input, options?: RunOptions): Promise<P>;
  async predict<P extends Prediction = Float64Array>(images: readonly Input[], options?: RunOptions): Promise<P[]>;
  async predict(images: Input | readonly Input[], options: RunOptions = {}): Promise<Prediction | Prediction[]> {
    const several = Array.isArray(images);
    const batch = (several ? images : [images]) as readonly Input[];
    const { profile } = this; // may be replaced meanwhile, and what is encrypted is for one model
    if (!batch.length) throw new BadShapeError("no images were given: give at least one");
    const rows = await told(options.signal, async () => {
      try {
        return await this.#predict(profile, batch, options);
      } catch (error) {
        const lost = error instanceof ModelChangedError || error instanceof UnknownKeyError; // nothing was computed; a new job brings the keys
        if (!lost && !(error instanceof WrongAnswerError)) throw error;
        const now = await this.#readAgain();
        if (now.programDigest === profile.programDigest && !lost) throw error;
        return this.#predict(now, batch, options);
      }
    });
    return several ? rows : rows[0]!;
  }

  /** Makes one job of images and does not wait for it; what reads its answer is kept in the keystore. */
  async submit(images: readonly Input[], options: RunOptions = {}): Promise<Job> {
    const { profile } = this;
    const { maxBatch } = profile;
    if (images.length < 1 || images.length > maxBatch) {
      throw new BadShapeError(`one job takes 1 to ${maxBatch} images, got ${images.length}: submit several jobs, or use predict`);
    }
    this.timings = noTime();
    return told(options.signal, async () => {
      const batch = await this.#levels(profile, images);
      const keys = await this.#timed("keys", () => this.#prepared(profile, options));
      const [receipt, status] = await this.#submit(profile, batch, keys, options.signal);
      await keepReceipt(this.keystore.store, receipt);
      return this.#job(status);
    });
  }

  /** Returns one of your jobs, submitted by this page or process or another one. */
  async job(id: string): Promise<Job> {
    return this.#job(await statusOf(this.#exchange, id));
  }

  /** Returns what the server says of your jobs, newest first. */
  async jobs(limit = 100): Promise<JobStatus[]> {
    const answer = await this.#exchange.send({ method: "GET", path: `/v2/jobs?limit=${limit}`, answerLimit: limit * (8 << 10) + 1024 });
    return Members.of(answer.content, "JobList").list("jobs", 0, limit, (job) => readStatus(new Members(job, "JobStatus")));
  }

  /** Erases the secret keys from memory; what rests in the keystore stays. The client cannot be used any more. */
  async close(): Promise<void> {
    const keys = [...this.#keys.values()];
    this.#keys.clear();
    this.#connection = undefined;
    for (const pair of await Promise.allSettled(keys)) if (pair.status === "fulfilled") pair.value.clientKeys.erase();
    await this.#stems.close();
  }

  get #exchange(): Exchange {
    if (!this.#connection) throw new ClosedError("the client was closed, and its keys are erased: connect again");
    return this.#connection;
  }

  #job(status: JobStatus): Job {
    return new Job(status, {
      exchange: this.#exchange,
      keystore: this.keystore,
      read: async (receipt, answer) => {
        const keys = await this.#opened(receipt.profile);
        if (keys.keyId !== receipt.keyId) {
          throw new WrongKeyError(`job ${receipt.jobId} was encrypted under keys ${receipt.keyId}, which are no longer in the keystore`);
        }
        try {
          return this.#decrypt(receipt, await this.#read(receipt, answer, keys), keys);
        } catch (error) {
          if (error instanceof WrongAnswerError) await this.#readAgain().catch(() => undefined); // the next job goes by the new profile
          throw error;
        }
      },
    });
  }

  /** Reads the profile again: the server may have another version of the model than before. */
  async #readAgain(): Promise<ModelProfile> {
    this.#profile = await profileOf(this.#exchange, this.#profile.model, this.#options);
    return this.#profile;
  }

  /** The keys of a model, opened or made once. */
  #opened({ params }: ModelProfile, options: RunOptions = {}): Promise<KeyPair> {
    void this.#exchange; // refuses once the client is closed
    const opening =
      this.#keys.get(params.id) ??
      this.keystore.open(params, (share) => options.onProgress?.({ stage: "keys", share })).catch((error: unknown) => {
        this.#keys.delete(params.id);
        throw error;
      });
    this.#keys.set(params.id, opening);
    return opening;
  }

  /** What is encrypted: the inputs themselves, or what the model's public part makes of them. */
  async #levels(profile: ModelProfile, images: readonly Input[]): Promise<Float64Array[]> {
    if (!profile.stem) return images.map((image) => toLevels(image, profile));
    const inputs = images.map((image) => toUnit(image, profile));
    const stem = await this.#stems.opened(this.#exchange, profile, profile.stem);
    return this.#timed("encrypt", async () => {
      const levels: Float64Array[] = [];
      for (const input of inputs) levels.push(toLevels(await stem.unit(input), profile));
      return levels;
    });
  }

  async #predict(profile: ModelProfile, images: readonly Input[], options: RunOptions): Promise<Prediction[]> {
    this.timings = noTime();
    const batch = await this.#levels(profile, images);
    const keys = await this.#timed("keys", () => this.#prepared(profile, options));
    const read: [Receipt, PackedAnswer[]][] = [];
    for (const [receipt, answer] of await this.#run(profile, batch, keys, options)) read.push([receipt, await this.#read(receipt, answer, keys)]);
    return read.flatMap(([receipt, answers]) => this.#decrypt(receipt, answers, keys));
  }

  async #prepared(profile: ModelProfile, options: RunOptions): Promise<KeyPair> {
    const keys = await this.#opened(profile, options);
    if (this.#uploaded.has(keys.keyId)) return keys;
    try {
      await this.#exchange.send({ method: "GET", path: `/v2/keys/${keys.keyId}`, signal: options.signal });
    } catch (error) {
      if (!(error instanceof UnknownKeyError)) throw error;
      await this.#upload(keys, options);
    }
    this.#uploaded.add(keys.keyId);
    return keys;
  }

  async #upload(keys: KeyPair, options: RunOptions): Promise<void> {
    const body = await keys.evaluationKeys();
    const sent = (bytes: number): void => options.onProgress?.({ stage: "upload", sent: bytes, total: body.length });
    await this.#exchange.send({
      method: "PUT", path: `/v2/keys/${keys.keyId}`, body, sent, silenceSeconds: 120, signal: options.signal,
    });
  }

  /** Returns the answers to a batch, cut into jobs; those that are not needed any more are canceled. */
  async #run(
    profile: ModelProfile, batch: readonly Float64Array[], keys: KeyPair, options: RunOptions,
  ): Promise<[Receipt, Answer][]> {
    const { maxBatch } = profile;
    const end = performance.now() + (options.timeoutSeconds ?? Infinity) * 1000;
    const observe = (status: JobStatus): void => options.onProgress?.({ stage: "job", status });
    const running: Receipt[] = [];
    const answers: [Receipt, Answer][] = [];
    try {
      for (let next = 0; next < batch.length || running.length; ) {
        if (next < batch.length && running.length < JOBS_AHEAD) {
          running.push((await this.#submit(profile, batch.slice(next, next + maxBatch), keys, options.signal))[0]);
          next += maxBatch;
          continue;
        }
        const receipt = running[0]!;
        const answer = await this.#timed("transfer", async () => {
          const left = (end - performance.now()) / 1000;
          const status = await follow(this.#exchange, receipt.jobId, observe, left, options.signal);
          return fetchAnswer(this.#exchange, receipt, status, options.signal);
        });
        this.traffic = { ...this.traffic, received: answer.content.length };
        answers.push([receipt, answer]);
        running.shift();
      }
    } catch (error) {
      const cancel = ({ jobId }: Receipt) => this.#exchange.transport.send({ method: "DELETE", path: jobPath(jobId), silenceSeconds: 2 });
      await Promise.allSettled(running.map(cancel));
      throw error;
    }
    return answers;
  }

  async #submit(
    profile: ModelProfile, batch: readonly Float64Array[], keys: KeyPair, signal?: AbortSignal,
  ): Promise<[Receipt, JobStatus]> {
    const ciphertexts = await this.#timed("encrypt", async () => {
      const containers: Bytes[] = [];
      for (const levels of batch) {
        const turns = levels.map((level) => level * profile.inputDelta);
        containers.push(await encrypt(keys.clientKeys, keys.keyId, turns, profile.bootstraps === 0));
      }
      return containers;
    });
    const [requestId, call] = submitCall(profile, keys.keyId, ciphertexts);
    const answer = await this.#timed("transfer", async () => {
      try {
        return await this.#exchange.send({ ...call, signal });
      } catch (error) {
        if (!(error instanceof UnknownKeyError)) throw error; // the server has dropped the keys since they were uploaded
        await this.#upload(keys, { ...(signal && { signal }) });
        return this.#exchange.send({ ...call, signal });
      }
    });
    this.traffic = { sent: call.body.length, received: 0, ciphertexts };
    const status = readStatus(Members.of(answer.content, "JobStatus"));
    const bindings = await Promise.all(ciphertexts.map((container) => bindingOf(container, keys.keyId, profile.programDigest)));
    const requests = bindings.map((binding) => binding.request);
    return [{ jobId: status.id, requestId, keyId: keys.keyId, profile, requests }, status];
  }

  /** Reads the public parts of an answer; nothing is decrypted. */
  async #read(receipt: Receipt, answer: Answer, keys: KeyPair): Promise<PackedAnswer[]> {
    const { profile, requests } = receipt;
    const { logits, serverSeconds } = parseAnswer(answer, receipt.requestId, requests.length);
    this.timings.transfer = Math.max(this.timings.transfer - serverSeconds, 0); // the server may have taken longer than we waited
    this.timings.server += serverSeconds;
    return this.#timed("decrypt", () =>
      Promise.all(
        requests.map((request, at) => {
          const binding = { keyId: receipt.keyId, request, program: profile.programDigest };
          return readAnswer(keys.clientKeys, logits[at]!, binding, answerValues(profile));
        }),
      ),
    );
  }

  #decrypt({ profile }: Receipt, answers: readonly PackedAnswer[], keys: KeyPair): Prediction[] {
    const started = performance.now();
    const rows = answers.map((answer) => logitsOf(profile, decrypt(keys.clientKeys, answer)));
    this.timings.decrypt += (performance.now() - started) / 1000;
    return rows;
  }

  async #timed<T>(stage: keyof Timings, work: () => Promise<T>): Promise<T> {
    const started = performance.now();
    try {
      return await work();
    } finally {
      this.timings[stage] += (performance.now() - started) / 1000;
    }
  }
}

function exchangeOf(url: string, options: ConnectOptions): Exchange {
  return new Exchange(new Transport(url, options.apiKey), options.retryTimeout ?? 60);
}

async function profileOf(exchange: Exchange, name: string, options: ConnectOptions): Promise<ModelProfile> {
  const answer = await exchange.send({ method: "GET", path: `/v2/models/${encodeURIComponent(name)}/profile` });
  Members.of(answer.content, "ModelProfile");
  const profile = await readProfile(JSON.parse(new TextDecoder().decode(answer.content)));
  if (profile.params.isToy && !options.allowToyParameters) {
    throw new InsecureParamsError(`${profile.model} uses ${profile.params.name}, which protects nothing`);
  }
  if (profile.params.blockLength > 1 && options.acceptBlockKeys === false) {
    throw new RefusedParamsError(
      `${profile.model} is served under ${profile.params.name}, whose small key is in blocks of ${profile.params.blockLength} bits: ` +
        "acceptBlockKeys: true accepts it, a server with CIPHERSHIFT_PARAMETER_SETS=own does without",
    );
  }
  return profile;
}

async function modelsOf(exchange: Exchange): Promise<string[]> {
  return parseModels((await exchange.send({ method: "GET", path: "/v2/models" })).content);
}

async function onlyModel(exchange: Exchange): Promise<string> {
  const names = await modelsOf(exchange);
  if (names.length !== 1) throw new UnknownModelError(`name one of the server's models: ${names.join(", ") || "it has none"}`);
  return names[0]!;
}
