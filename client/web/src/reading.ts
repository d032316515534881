/** What a server says, read with suspicion: every member is checked before it is used, and texts are cut to printable characters. */

import { MalformedError } from "./errors.js";

const MOST_LETTERS = 1000;

/** Returns a server's text as it may be shown: without control characters, and not endless. */
export function printable(text: string): string {
  const cut = text.length <= MOST_LETTERS ? text : `${text.slice(0, MOST_LETTERS - 1)}…`;
  return cut.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "\uFFFD");
}

/** The members of one JSON object. */
export class Members {
  readonly #what: string;
  readonly #members: Record<string, unknown>;

  /** @throws MalformedError the value is no object. */
  constructor(value: unknown, what: string) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw new MalformedError(`the server's ${what} is not a JSON object`);
    this.#what = what;
    this.#members = value as Record<string, unknown>;
  }

  /** @throws MalformedError the bytes are not JSON. */
  static of(content: Uint8Array, what: string): Members {
    try {
      return new Members(JSON.parse(new TextDecoder().decode(content)), what);
    } catch (error) {
      if (error instanceof MalformedError) throw error;
      throw new MalformedError(`the server's ${what} is not JSON`);
    }
  }

  text(name: string, most = MOST_LETTERS): string {
    const value = this.#members[name];
    if (typeof value !== "string" || value.length > most) this.#refuse(name, `a text of at most ${most} letters`);
    return printable(value as string);
  }

  matching(name: string, pattern: RegExp): string {
    const value = this.#members[name];
    if (typeof value !== "string" || !pattern.test(value)) this.#refuse(name, `a text like ${pattern.source}`);
    return value as string;
  }

  integer(name: string, least = 0, most = Number.MAX_SAFE_INTEGER): number {
    const value = this.#members[name];
    if (!Number.isSafeInteger(value) || (value as number) < least || (value as number) > most) {
      this.#refuse(name, `a whole number from ${least} to ${most}`);
    }
    return value as number;
  }

  number(name: string, least = -Infinity, most = Infinity): number {
    const value = this.#members[name];
    if (typeof value !== "number" || !Number.isFinite(value) || value < least || value > most) {
      this.#refuse(name, `a number from ${least} to ${most}`);
    }
    return value as number;
  }

  list<T>(name: string, least: number, most: number, each: (value: unknown) => T): T[] {
    const value = this.#members[name];
    if (!Array.isArray(value) || value.length < least || value.length > most) this.#refuse(name, `a list of ${least} to ${most}`);
    return (value as unknown[]).map(each);
  }

  numbers(name: string, count: number, least: number, most: number): number[] {
    const item = (value: unknown): number => new Members({ [name]: value }, this.#what).number(name, least, most);
    return this.list(name, count, count, item);
  }

  texts(name: string, most: number, least = 0): string[] {
    return this.list(name, least, most, (value) => new Members({ [name]: value }, this.#what).text(name, 128));
  }

  flag(name: string): boolean {
    const value = this.#members[name];
    if (typeof value !== "boolean") this.#refuse(name, "true or false");
    return value as boolean;
  }

  object(name: string): Members {
    return new Members(this.#members[name], `${this.#what}, ${name}`);
  }

  /** Returns what `read` reads, or null where the member is null or missing. */
  optional<T>(name: string, read: (name: string) => T): T | null {
    return this.#members[name] === undefined || this.#members[name] === null ? null : read(name);
  }

  #refuse(name: string, wanted: string): never {
    throw new MalformedError(`the server's ${this.#what} is not usable: ${name} is not ${wanted}`);
  }
}
