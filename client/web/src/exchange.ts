/** One call, sent until it succeeds, fails for good, or its time for retries is over. */

import { randomBytes } from "./bytes.js";
import { CiphershiftError, TooLargeError, UnreachableError, fromCode } from "./errors.js";
import { Members } from "./reading.js";
import type { Answer, Call, Transport } from "./transport.js";

export const IDEMPOTENCY_KEY = "Idempotency-Key";
export const RETRIED: readonly number[] = [429, 502, 503, 504];
const LONGEST_PAUSE = 8;

/** Sends calls; those that can be sent twice are sent again while that may help and the retry timeout lasts. */
export class Exchange {
  readonly transport: Transport;
  readonly #retryTimeout: number;
  #reached = false; // a server that never answered is more likely a wrong address than a restart

  /** @param retryTimeout seconds that the pauses between the attempts of one call may come to. */
  constructor(transport: Transport, retryTimeout: number) {
    this.transport = transport;
    this.#retryTimeout = retryTimeout;
  }

  /**
   * Returns the good answer to a call.
   *
   * @throws UnreachableError the server does not answer, or stopped answering.
   * @throws CiphershiftError what the server says is wrong.
   */
  async send(call: Call): Promise<Answer> {
    const repeatable = call.method !== "POST" || call.headers?.[IDEMPOTENCY_KEY] !== undefined;
    let waited = 0;
    for (let attempt = 0; ; attempt++) {
      let seconds = backoff(attempt);
      try {
        const answer = await this.transport.send(call);
        this.#reached = true;
        if (answer.status >= 200 && answer.status < 300) return answer;
        seconds = Math.max(askedPause(answer), seconds);
        if (!RETRIED.includes(answer.status) || !repeatable || waited + seconds > this.#retryTimeout) throw errorOf(answer, this.transport.url);
      } catch (error) {
        const again = error instanceof UnreachableError && this.#reached && repeatable && waited + seconds <= this.#retryTimeout;
        if (!again) throw error;
      }
      await pause(seconds, call.signal);
      waited += seconds;
    }
  }
}

/** Returns the typed error that a problem+json answer stands for. */
export function errorOf(answer: Answer, url: string): CiphershiftError {
  if (answer.headers.get("Content-Type")?.startsWith("application/problem+json")) {
    const problem = Members.of(answer.content, "error");
    return fromCode(problem.text("code"), problem.text("detail"));
  }
  if (answer.status === 413) {
    return new TooLargeError(
      "a proxy before the server refuses so many bytes: raise its limit (nginx: client_max_body_size 256m; deploy/proxies has examples)",
    );
  }
  if ([502, 503, 504].includes(answer.status)) return new UnreachableError(`a proxy before the server answered ${answer.status}`);
  return new CiphershiftError(`${url} answered ${answer.status}: is this a ciphershift server?`);
}

/** Waits; an aborted signal ends it with its reason. */
export function pause(seconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const give = (): void => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", give);
      resolve();
    }, seconds * 1000);
    signal?.addEventListener("abort", give, { once: true });
  });
}

function askedPause(answer: Answer): number {
  const asked = answer.headers.get("Retry-After") ?? "";
  return /^\d{1,9}$/.test(asked) ? Number(asked) : 0;
}

/** Doubles from half a second; a random part keeps clients that failed together from coming back together. */
function backoff(attempt: number): number {
  return Math.min(0.5 * 2 ** attempt, LONGEST_PAUSE) * (0.75 + (0.25 * randomBytes(1)[0]!) / 256);
}
