/** What a caller may choose, and what is told of the work. */

import type { JobStatus } from "./jobs.js";
import type { Keystore } from "./keystore.js";
import type { OnnxRuntime } from "./onnxruntime.js";

/** What is done at the moment. */
export type Progress =
  | { readonly stage: "keys"; readonly share: number } // of new keys, from 0 to 1
  | { readonly stage: "upload"; readonly sent: number; readonly total: number } // bytes of evaluation keys
  | { readonly stage: "job"; readonly status: JobStatus };

export interface ConnectOptions {
  /** Which of the server's models to use; not needed if it has one only. */
  readonly model?: string;
  /** What opens the server; sent over https, or to this machine, alone. */
  readonly apiKey?: string;
  /** Where keys rest: the default is this origin's IndexedDB in a browser, and memory elsewhere. */
  readonly keystore?: Keystore;
  /** Seconds for which a request is sent again while the server is busy, restarts, or is gone after it has answered once; 60 by default. */
  readonly retryTimeout?: number;
  /** Gives onnxruntime-web, which computes the public part of a model that has one: `() => import("onnxruntime-web")`. */
  readonly onnxruntime?: () => Promise<OnnxRuntime>;
  /** Accept parameter sets whose small key is in blocks (SECURITY.md says what is assumed); true unless said otherwise. */
  readonly acceptBlockKeys?: boolean;
  /** Accept insecure parameter sets, for tests. */
  readonly allowToyParameters?: boolean;
}

export interface RunOptions {
  /** Is told what is done at the moment. */
  readonly onProgress?: (progress: Progress) => void;
  /** Ends the work; what runs on the server is canceled. */
  readonly signal?: AbortSignal;
  /** Seconds to wait for the server in all. */
  readonly timeoutSeconds?: number;
}

/** Seconds of one prediction by stage, summed over its images. */
export interface Timings {
  keys: number;
  encrypt: number;
  /** With the wait in the server's queue. */
  transfer: number;
  server: number;
  decrypt: number;
}

/** What went over the wire for the last job: bytes of both bodies, and the container of each image as it was sent. */
export interface Traffic {
  readonly sent: number;
  readonly received: number;
  readonly ciphertexts: readonly Uint8Array[];
}

/** Returns timings of work that has not begun. */
export function noTime(): Timings {
  return { keys: 0, encrypt: 0, transfer: 0, server: 0, decrypt: 0 };
}
