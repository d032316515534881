/** Server-sent events, read as they arrive: bounded in memory, whatever a server sends (HTML Living Standard, section 9.2.6). */

import { MalformedError, TooLargeError } from "./errors.js";

export const MAX_EVENT_LETTERS = 64 << 10;
export const MAX_IDLE_LETTERS = 1 << 20;

/** One event: its name, its data, and the id after which the stream can be taken up again. */
export interface ServerEvent {
  readonly name: string;
  readonly data: string;
  readonly id: string;
}

/** Makes events of a stream's chunks. */
export class EventReader {
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });
  #rest = "";
  #fields = new Map<string, string>();
  #id = "";
  #eventLetters = 0;
  #idleLetters = 0;

  /**
   * Returns the events that end in this chunk.
   *
   * @throws TooLargeError an event, or what stands between two events, is longer than any service of ours sends.
   * @throws MalformedError the stream is not text.
   */
  feed(chunk: Uint8Array): ServerEvent[] {
    const events: ServerEvent[] = [];
    const lines = (this.#rest + this.#text(chunk)).split("\n");
    this.#rest = lines.pop()!;
    for (const line of lines) {
      this.#idleLetters += line.length + 1;
      if (line === "" || line === "\r") events.push(...this.#end());
      else this.#take(line.replace(/\r$/, ""));
    }
    this.#check(this.#rest.length);
    return events;
  }

  #text(chunk: Uint8Array): string {
    try {
      return this.#decoder.decode(chunk, { stream: true });
    } catch {
      throw new MalformedError("the stream of events is not UTF-8 text: is this a ciphershift server?");
    }
  }

  #check(more: number): void {
    if (this.#eventLetters + more > MAX_EVENT_LETTERS || this.#idleLetters > MAX_IDLE_LETTERS) {
      throw new TooLargeError(`the stream holds no end of an event within ${MAX_EVENT_LETTERS} letters: is this a ciphershift server?`);
    }
  }

  #take(line: string): void {
    this.#check(line.length);
    this.#eventLetters += line.length;
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    const before = name === "data" ? this.#fields.get(name) : undefined;
    this.#fields.set(name, before === undefined ? value : `${before}\n${value}`);
  }

  #end(): ServerEvent[] {
    const fields = this.#fields;
    this.#fields = new Map();
    this.#eventLetters = 0;
    const given = fields.get("id") ?? "";
    if (/^[\x20-\x7e]+$/.test(given)) this.#id = given; // it goes back to the server in a header
    const data = fields.get("data");
    if (data === undefined) return [];
    this.#idleLetters = 0;
    return [{ name: fields.get("event") ?? "message", data, id: this.#id }];
  }
}
