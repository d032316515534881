/** Sends one request and reads its answer, under limits of bytes and of time: the only place that touches the network. */

import { CiphershiftError, InsecureTransportError, TooLargeError, UnauthorizedError, UnreachableError } from "./errors.js";

const CHUNK_BYTES = 256 << 10;

/** One HTTP request, and how much answer it may bring. */
export interface Call {
  readonly method: "GET" | "PUT" | "POST" | "DELETE";
  readonly path: string;
  readonly body?: Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
  /** Bytes; a longer answer is an error. */
  readonly answerLimit?: number;
  /** Seconds without a byte of answer, before the connection is given up. */
  readonly silenceSeconds?: number;
  /** Takes a good answer as it arrives; false ends it. */
  readonly receive?: (chunk: Uint8Array) => boolean;
  /** Is told how many bytes of the body are sent. */
  readonly sent?: (bytes: number) => void;
  readonly signal?: AbortSignal | undefined;
}

/** What came back. */
export interface Answer {
  readonly status: number;
  readonly headers: Pick<Headers, "get">;
  readonly content: Uint8Array;
}

/** A server's address, and what opens it. */
export class Transport {
  readonly url: string;
  readonly #apiKey: string | undefined;

  /**
   * @throws UnreachableError the address is not that of a web server.
   * @throws InsecureTransportError the API key would cross a network unencrypted.
   */
  constructor(url: string, apiKey?: string) {
    const parsed = parse(url);
    this.url = parsed.href.replace(/\/+$/, "");
    this.#apiKey = apiKey?.trim() || undefined;
    if (this.#apiKey !== undefined && !/^[\x21-\x7e]+$/.test(this.#apiKey)) {
      throw new UnauthorizedError("the API key holds characters that no key has: copy it again"); // and never shows it
    }
    if (this.#apiKey !== undefined && parsed.protocol === "http:" && !isLoopback(parsed.hostname)) {
      throw new InsecureTransportError(`an API key would cross the network in clear on its way to ${this.url}: use https://${parsed.host}`);
    }
  }

  /**
   * Returns the answer to a call, whatever its status.
   *
   * @throws UnreachableError no answer, or its end did not come.
   * @throws TooLargeError the answer is longer than the call can need.
   * @throws unknown the signal's reason, if it was aborted.
   */
  async send(call: Call): Promise<Answer> {
    call.signal?.throwIfAborted();
    const watch = new Watch(call);
    try {
      return call.sent && call.body && typeof XMLHttpRequest !== "undefined" ? await this.#upload(call, watch) : await this.#fetch(call, watch);
    } catch (error) {
      watch.stop();
      call.signal?.throwIfAborted();
      if (watch.failure || error instanceof CiphershiftError) throw watch.failure ?? error;
      throw new UnreachableError(
        `no answer from ${this.url} (${error instanceof Error ? error.message : String(error)}): is a server running there, and does it ` +
          "allow this page's origin (CIPHERSHIFT_ALLOWED_ORIGINS)?",
      );
    } finally {
      watch.end();
    }
  }

  async #fetch(call: Call, watch: Watch): Promise<Answer> {
    const told = (bytes: number): void => {
      watch.heard();
      call.sent?.(bytes);
    };
    const response = await fetch(this.url + call.path, {
      method: call.method,
      headers: this.#headers(call),
      signal: watch.signal,
      redirect: "error",
      credentials: "omit",
      cache: "no-store",
      referrerPolicy: "no-referrer",
      ...(call.body && (call.sent ? counted(call.body, told) : { body: call.body as Uint8Array<ArrayBuffer> })),
    });
    const receive = response.ok ? call.receive : undefined;
    const chunks: Uint8Array[] = [];
    let size = 0;
    for (const reader = response.body?.getReader(); reader; ) {
      const { done, value } = await reader.read();
      if (done) break;
      watch.heard();
      if (receive) {
        if (receive(value)) continue;
        await reader.cancel();
        break;
      }
      size += value.length;
      this.#checkSize(call, size);
      chunks.push(value);
    }
    const content = new Uint8Array(size);
    let at = 0;
    for (const chunk of chunks) {
      content.set(chunk, at);
      at += chunk.length;
    }
    return { status: response.status, headers: response.headers, content };
  }

  /** Browsers tell how much of a body is sent in this way alone. */
  #upload(call: Call, watch: Watch): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open(call.method, this.url + call.path);
      request.responseType = "arraybuffer";
      Object.entries(this.#headers(call)).forEach(([name, value]) => request.setRequestHeader(name, value));
      request.upload.onprogress = (event) => {
        watch.heard();
        call.sent!(event.loaded);
      };
      request.onload = () => {
        const content = new Uint8Array(request.response as ArrayBuffer);
        const headers = { get: (name: string) => request.getResponseHeader(name) };
        try {
          this.#checkSize(call, content.length);
          resolve({ status: request.status, headers, content });
        } catch (error) {
          reject(error);
        }
      };
      request.onerror = () => reject(new TypeError("the upload broke"));
      request.onabort = () => reject(watch.signal.reason);
      watch.signal.addEventListener("abort", () => request.abort());
      request.send(call.body as Uint8Array<ArrayBuffer>);
    });
  }

  #headers(call: Call): Record<string, string> {
    return {
      ...(call.body && { "Content-Type": "application/octet-stream" }),
      ...(this.#apiKey && { Authorization: `Bearer ${this.#apiKey}` }),
      ...call.headers,
    };
  }

  #checkSize(call: Call, size: number): void {
    const limit = call.answerLimit ?? 1 << 20;
    if (size > limit) throw new TooLargeError(`${this.url}${call.path} answers with more than the ${limit} bytes that it can need`);
  }
}

/** Ends a call that nothing is heard of, or whose caller wants no more of it. */
class Watch {
  readonly #controller = new AbortController();
  readonly #call: Call;
  readonly #give = (): void => this.#controller.abort(this.#call.signal?.reason);
  #timer: ReturnType<typeof setTimeout> | undefined;
  failure: UnreachableError | undefined;

  constructor(call: Call) {
    this.#call = call;
    call.signal?.addEventListener("abort", this.#give);
    this.heard();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Begins the time of silence anew. */
  heard(): void {
    clearTimeout(this.#timer);
    const seconds = this.#call.silenceSeconds ?? 60;
    this.#timer = setTimeout(() => {
      this.failure = new UnreachableError(`nothing was heard of ${this.#call.method} ${this.#call.path} for ${seconds} s`);
      this.#controller.abort(this.failure);
    }, seconds * 1000);
  }

  /** Closes a connection that brings more than is wanted. */
  stop(): void {
    this.#controller.abort(this.failure);
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#call.signal?.removeEventListener("abort", this.#give);
  }
}

/** A body that is sent in chunks and tells of each, where there is no XMLHttpRequest. */
function counted(body: Uint8Array, sent: (bytes: number) => void): RequestInit {
  let at = 0;
  const stream = new ReadableStream<Uint8Array>({
    pull(controller) {
      const chunk = body.subarray(at, (at += CHUNK_BYTES));
      if (chunk.length) controller.enqueue(chunk);
      else controller.close();
      sent(Math.min(at, body.length));
    },
  });
  return { body: stream, duplex: "half" } as RequestInit;
}

function parse(url: string): URL {
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    throw new UnreachableError(`the server's address cannot be read: ${JSON.stringify(url)}`);
  }
  if (!["http:", "https:"].includes(parsed.protocol) || parsed.username || parsed.password || parsed.search || parsed.hash) {
    throw new UnreachableError("the server's address must be like https://he.example.org or http://127.0.0.1:8000, without user or password");
  }
  return parsed;
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host.endsWith(".localhost") || host === "[::1]" || /^127(\.\d+){3}$/.test(host);
}
