/** The client for browsers and Node: makes keys, encrypts images, asks a server and decrypts the answer. */

export { BrowserStore } from "./browser-store.js";
export { Client } from "./client.js";
export { HEADER_BYTES } from "./container.js";
export { type InputEncoding, nameOf, rangeOf } from "./encoding.js";
export * from "./errors.js";
export { type Fitted, type ImageKind, fit, readsDigits } from "./fit.js";
export { type CanvasPixels, type Input, type Pixels, fromCanvas, toLevels, toUnit } from "./images.js";
export type { InputExample, ModelInputs } from "./inputs.js";
export type { Job } from "./job.js";
export type { JobProgress, JobStatus } from "./jobs.js";
export { type KeyFiles, Keystore, type KeystoreOptions, MemoryStore, type Store } from "./keystore.js";
export type { OnnxOptions, OnnxRuntime, OnnxSession, OnnxValue } from "./onnxruntime.js";
export type { ConnectOptions, Progress, RunOptions, Timings, Traffic } from "./options.js";
export { ParameterSet } from "./params.js";
export type { LayerProfile, ModelProfile, OutputProfile, Prediction } from "./profile.js";
export type { Sequence } from "./sequences.js";
export type { StemProfile } from "./stem.js";
