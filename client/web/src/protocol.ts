/** Bodies of requests and answers: the binary tensor data extension of the Open Inference Protocol v2. */

import { type Bytes, concat, randomBytes, toHex } from "./bytes.js";
import { MalformedError } from "./errors.js";
import { IDEMPOTENCY_KEY } from "./exchange.js";
import type { ModelProfile } from "./profile.js";
import { Members } from "./reading.js";
import type { Answer, Call } from "./transport.js";

const HEADER_LENGTH = "Inference-Header-Content-Length";
const LENGTH_BYTES = 4;
const ANSWER_EXTRA_BYTES = 64 << 10; // what an answer holds beside its ciphertexts

/** Encrypted rows of logits, one per image, and what the server says of their making. */
export interface InferAnswer {
  readonly logits: readonly Uint8Array[];
  readonly serverSeconds: number;
}

/** Returns a fresh request id and the request that makes a job of encrypted images; sent again, it is the same job. */
export function submitCall(profile: ModelProfile, keyId: string, images: readonly Bytes[]): [string, Call & { readonly body: Bytes }] {
  const id = toHex(randomBytes(16));
  const data = concat(...images.flatMap((image) => [lengthOf(image), image]));
  const tensor = { name: "image", datatype: "BYTES", shape: [images.length], parameters: { binary_data_size: data.length } };
  const parameters = { key_id: keyId, image_shape: profile.inputShape.join("x"), binary_data_output: true };
  const header = new TextEncoder().encode(JSON.stringify({ id, parameters, inputs: [tensor] }));
  const headers = { [HEADER_LENGTH]: String(header.length), [IDEMPOTENCY_KEY]: id };
  return [id, { method: "POST", path: `/v2/models/${profile.model}/jobs`, body: concat(header, data), headers }];
}

/** Returns the bytes that the answer to so many images can have. */
export function answerLimit(profile: ModelProfile, images: number): number {
  return images * (profile.downloadBytes + LENGTH_BYTES) + ANSWER_EXTRA_BYTES;
}

/**
 * Reads the result of a job.
 *
 * @throws MalformedError it does not follow the protocol, or answers another request.
 */
export function parseAnswer(answer: Answer, requestId: string, images: number): InferAnswer {
  const { content } = answer;
  const given = answer.headers.get(HEADER_LENGTH) ?? "";
  const split = /^\d{1,9}$/.test(given) ? Number(given) : Infinity;
  if (split > content.length) {
    throw new MalformedError(`the server's answer does not follow the protocol: ${HEADER_LENGTH} is ${JSON.stringify(given.slice(0, 32))}`);
  }
  const header = Members.of(content.subarray(0, split), "answer");
  const answered = header.text("id");
  if (answered !== requestId) throw new MalformedError(`the server answered request ${answered}, sent was ${requestId}`);
  const logits = elements(content.subarray(split));
  if (logits.length !== images) throw new MalformedError(`the server's answer holds ${logits.length} rows of logits, ${images} images were sent`);
  return { logits, serverSeconds: header.object("parameters").number("server_seconds", 0) };
}

/** Returns the names in the list of models. */
export function parseModels(content: Uint8Array): string[] {
  return Members.of(content, "list of models").list("models", 0, 4096, (model) => new Members(model, "list of models").text("name", 128));
}

function lengthOf(image: Bytes): Uint8Array {
  const bytes = new Uint8Array(LENGTH_BYTES);
  new DataView(bytes.buffer).setUint32(0, image.length, true);
  return bytes;
}

function elements(data: Uint8Array): Uint8Array[] {
  const found: Uint8Array[] = [];
  for (let at = 0; at < data.length; ) {
    if (at + LENGTH_BYTES > data.length) throw new MalformedError("the server's answer ends inside the length of a row");
    const length = new DataView(data.buffer, data.byteOffset + at).getUint32(0, true);
    at += LENGTH_BYTES;
    if (at + length > data.length) throw new MalformedError(`the server's answer ends inside a row of ${length} bytes`);
    found.push(data.subarray(at, (at += length)));
  }
  return found;
}
