/** A job in the hands of who submitted it: to wait for, to read, to end. */

import { CanceledError } from "./errors.js";
import type { Exchange } from "./exchange.js";
import { type JobStatus, follow, isFinished, jobPath, readStatus, statusOf } from "./jobs.js";
import type { Keystore } from "./keystore.js";
import type { RunOptions } from "./options.js";
import type { Prediction } from "./profile.js";
import { answerLimit } from "./protocol.js";
import { Members } from "./reading.js";
import { type Receipt, findReceipt, forgetReceipt } from "./receipts.js";
import type { Answer } from "./transport.js";

/** What a job needs of the client that it comes from. */
export interface Ways {
  readonly exchange: Exchange;
  readonly keystore: Keystore;
  readonly read: (receipt: Receipt, answer: Answer) => Promise<Prediction[]>;
}

/** Encrypted images on their way through a server. */
export class Job {
  /** What the server said of it last. */
  status: JobStatus;
  readonly #ways: Ways;

  /** Comes from `Client.submit` and `Client.job`. */
  constructor(status: JobStatus, ways: Ways) {
    this.status = status;
    this.#ways = ways;
  }

  get id(): string {
    return this.status.id;
  }

  /** Asks the server how the job is doing. */
  async refresh(): Promise<JobStatus> {
    return (this.status = await statusOf(this.#ways.exchange, this.id));
  }

  /** Waits until the job is completed, failed or canceled. Throws DeadlineError when the timeout has passed; the job goes on. */
  async wait(options: RunOptions = {}): Promise<JobStatus> {
    const observe = (status: JobStatus): void => options.onProgress?.({ stage: "job", status });
    return told(options.signal, async () => {
      await this.refresh();
      if (isFinished(this.status)) return this.status;
      return (this.status = await follow(this.#ways.exchange, this.id, observe, options.timeoutSeconds ?? Infinity, options.signal));
    });
  }

  /**
   * Waits for the logits, a row for each image as `predict` gives it, and decrypts them; can be called again while the server keeps the answer.
   *
   * @throws UnknownJobError the images were not sent with this keystore.
   * @throws CanceledError, ExpiredError there is no answer any more.
   * @throws CiphershiftError why the job failed.
   */
  async result<P extends Prediction = Float64Array>(options: RunOptions = {}): Promise<P[]> {
    const receipt = await findReceipt(this.#ways.keystore.store, this.id);
    const status = await this.wait(options);
    const answer = await told(options.signal, () => fetchAnswer(this.#ways.exchange, receipt, status, options.signal));
    return (await this.#ways.read(receipt, answer)) as P[];
  }

  /** Ends the job, or makes the server forget the answer of one that is finished. */
  async cancel(): Promise<JobStatus> {
    const answer = await this.#ways.exchange.send({ method: "DELETE", path: jobPath(this.id) });
    await forgetReceipt(this.#ways.keystore.store, this.id);
    return (this.status = readStatus(Members.of(answer.content, "JobStatus")));
  }
}

/** Returns the answer of a job that is finished. Throws what it failed with. */
export async function fetchAnswer(exchange: Exchange, receipt: Receipt, status: JobStatus, signal?: AbortSignal): Promise<Answer> {
  if (status.error) throw status.error;
  const limit = answerLimit(receipt.profile, receipt.requests.length);
  return exchange.send({ method: "GET", path: `${jobPath(receipt.jobId)}/result`, answerLimit: limit, signal });
}

/** Runs work that a signal can end, and says so by the error of this package. */
export async function told<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (signal?.aborted && error === signal.reason) throw new CanceledError("stopped by its caller; the server was told to forget it");
    throw error;
  }
}
