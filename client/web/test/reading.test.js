// What a server may send: each oddity meets a typed error, before it is used.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { EventReader } from "../dist/events.js";
import { Exchange } from "../dist/exchange.js";
import { fromCanvas, toLevels } from "../dist/images.js";
import { follow } from "../dist/jobs.js";
import { logitsOf, readProfile, sizesOf } from "../dist/profile.js";
import { parseAnswer } from "../dist/protocol.js";
import { printable } from "../dist/reading.js";
import { Transport } from "../dist/transport.js";
import { ParameterSet } from "../dist/params.js";
import { flat } from "../page/answer.js";

const bytes = (text) => new TextEncoder().encode(text);
const TOY = await ParameterSet.get("TOY_N128");
const SIZES = sizesOf(TOY, 4, 2, false);
const PROFILE = {
  model: "tiny", version: "1", program_digest: "ab".repeat(32), params_id: TOY.id, security_bits: 0,
  input_shape: [1, 2, 2], input_levels: 15, input_delta: 0.004, classes: ["a", "b"], turns_to_logits: 100, logit_step: null,
  bootstraps: 4, layers: [{ name: "one", kind: "relu", lookups: 4 }], key_bytes: SIZES.keyBytes, upload_bytes: SIZES.uploadBytes, download_bytes: SIZES.downloadBytes, max_batch: 2,
};
const JOB = {
  id: "job1", model: "tiny", model_version: "1", state: "in_progress", images: 1, created: "2026-01-01T00:00:00Z",
  progress: { layer: "one", bootstraps_done: 1, bootstraps_total: 4 }, queue_position: null, error: null,
};

let url;
let answer;
const server = createServer((request, response) => answer(request, response));
before(() => new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve((url = `http://127.0.0.1:${server.address().port}`)))));
after(() => server.close());
const exchange = (retryTimeout = 0) => new Exchange(new Transport(url), retryTimeout);

test("a profile is read, and one that is impossible is refused by the name of its member", async () => {
  const profile = await readProfile(PROFILE);
  assert.equal(profile.params.name, "TOY_N128");
  const changes = {
    model: "../jobs", input_shape: [], input_levels: 256, input_delta: -1, classes: [], turns_to_logits: "1e9", max_batch: 0.5,
    program_digest: "AB", layers: [{}], key_bytes: SIZES.keyBytes + 1, upload_bytes: 1, download_bytes: 1,
  };
  for (const [name, value] of Object.entries(changes)) {
    await assert.rejects(readProfile({ ...PROFILE, [name]: value }), { code: "malformed" }, name);
  }
  await assert.rejects(readProfile({ ...PROFILE, params_id: "cd".repeat(32) }), { code: "unknown_params" });
  await readProfile({ ...PROFILE, stem: null });
});

test("values that are answered twice have the noise of the finer answer", async () => {
  const { keyBytes, uploadBytes, downloadBytes } = sizesOf(TOY, 4, 4, true);
  const refined = {
    ...PROFILE, output_refinement: 64, bootstraps: 0, layers: [], key_bytes: keyBytes, upload_bytes: uploadBytes, download_bytes: downloadBytes,
  };
  const profile = await readProfile(refined);
  const [first, second] = logitsOf(profile, Float64Array.of(0.1003, -0.2002, 0.4001, 0.2001));
  assert.ok(Math.abs(first - 100 * 6.4001 / 64) < 1e-9 && Math.abs(second + 100 * 12.7999 / 64) < 1e-9);
  for (const change of [{ output_refinement: 0 }, { output_refinement: 1 }, { output_refinement: 257 }, { output_refinement: 1.5 }, { output_refinement: "64" }, { output_refinement: null }]) {
    await assert.rejects(readProfile({ ...refined, ...change }), { code: "malformed" });
  }
  await assert.rejects(readProfile({ ...PROFILE, output_refinement: 64, download_bytes: downloadBytes }), { code: "malformed" }); // it has look-ups
});

test("several outputs are logits by name, in their shapes and scales", async () => {
  const one = { shape: [1], factor: 1, function: null };
  const outputs = [{ ...one, name: "age", factor: 0.5 }, { ...one, name: "sex", function: "sigmoid" }];
  const profile = await readProfile({ ...PROFILE, outputs });
  assert.deepEqual(logitsOf(profile, Float64Array.of(0.25, 0.5)), { age: Float64Array.of(12.5), sex: Float64Array.of(50) });
  const numbered = await readProfile({ ...PROFILE, outputs: [{ ...one, name: "10" }, { ...one, name: "9" }] });
  assert.deepEqual(flat(numbered, logitsOf(numbered, Float64Array.of(0.25, 0.5))), [25, 50]); // an object has 9 before 10
  assert.deepEqual(flat(profile, Float64Array.of(1, 2)), [1, 2]);
  const map = await readProfile({ ...PROFILE, outputs: [{ ...one, name: "", shape: [2, 1, 1] }] });
  assert.deepEqual(logitsOf(map, Float64Array.of(0.25, 0.5)), Float64Array.of(25, 50));
  for (const wrong of [[], outputs.slice(1), [outputs[0], { ...outputs[1], name: "age" }], [{ ...one, name: "x", shape: [2, 0] }], [{ ...one, name: "x", factor: -1, shape: [2] }]]) {
    await assert.rejects(readProfile({ ...PROFILE, outputs: wrong }), { code: "malformed" });
  }
});

test("what a profile says of a public part is read, and refused where it cannot be", async () => {
  const stem = {
    public: "features.0", meaning: "known to all", sha256: "ef".repeat(32), bytes: 100, input_shape: [1, 4, 4], low: [0], high: [2], most_outside: 0.1,
  };
  const profile = await readProfile({ ...PROFILE, stem });
  assert.deepEqual([profile.sampleShape, profile.inputShape, profile.stem.mostOutside], [[1, 4, 4], [1, 2, 2], 0.1]);
  const malformed = { bytes: 2 ** 26 + 1, sha256: "../../x", input_shape: [], low: [], high: [Infinity], most_outside: 2 };
  for (const [name, value] of Object.entries(malformed)) {
    await assert.rejects(readProfile({ ...PROFILE, stem: { ...stem, [name]: value } }), { code: "malformed" }, name);
  }
  for (const ends of [{ low: [2] }, { low: [0, 0], high: [1, 1] }, { low: [0, 0] }]) {
    await assert.rejects(readProfile({ ...PROFILE, stem: { ...stem, ...ends } }), { code: "bad_stem" });
  }
});

test("vectors, series and images are inputs", async () => {
  for (const shape of [[4], [2, 2], [1, 2, 2]]) {
    const profile = await readProfile({ ...PROFILE, input_shape: shape });
    assert.deepEqual(Array.from(toLevels(Float64Array.of(0, 0.2, 0.4, 1), profile)), [0, 3, 6, 15]);
    assert.throws(() => toLevels(new Uint8Array(3), profile), { code: "bad_shape", message: /takes / });
  }
  await assert.rejects(readProfile({ ...PROFILE, input_shape: [1, 1, 2, 2] }), { code: "malformed" });
  const series = await readProfile({ ...PROFILE, input_shape: [2, 2] });
  assert.throws(() => fromCanvas({ width: 2, height: 2, data: new Uint8ClampedArray(16) }, series), { code: "bad_shape", message: /not images/ });
});

test("an encoding is one for each feature, and its values are raw", async () => {
  const encoding = { origin: [0, 10], step: [0.5, 2], lowest: [-2, 0], names: ["dose", "age"], pixels: false };
  const profile = await readProfile({ ...PROFILE, input_shape: [2, 2], input_encoding: encoding });
  assert.deepEqual(Array.from(toLevels(Float64Array.of(-1, 6.5, 10, 40), profile)), [-2, 13, 0, 15]);
  assert.throws(() => toLevels(Float64Array.of(0, 0, 10, 42), profile), { code: "out_of_levels", message: "age is 42; the model takes 10 to 40" });
  assert.throws(() => toLevels(Float64Array.of(NaN, 0, 10, 10), profile), { code: "out_of_levels", message: /^dose is NaN/ });
  const changes = { origin: [0], step: [0, 1], lowest: [1, 0], names: ["dose"], pixels: 1 };
  for (const [name, value] of Object.entries(changes)) {
    const wrong = { ...PROFILE, input_shape: [2, 2], input_encoding: { ...encoding, [name]: value } };
    await assert.rejects(readProfile(wrong), { code: "malformed" }, name);
  }
});

test("a sequence of 1 to the model's own steps is padded in front, and its length is a feature", async () => {
  const encoding = { origin: [0, 0], step: [1, 1 / 15], lowest: [0, 0] };
  const sized = sizesOf(TOY, 8, 2, false);
  const sequences = { ...PROFILE, input_shape: [2, 4], input_sequences: true, input_encoding: encoding, upload_bytes: sized.uploadBytes };
  const profile = await readProfile(sequences);
  const made = (steps, ...values) => Array.from(toLevels({ steps, values: Float64Array.from(values) }, profile));
  assert.deepEqual(made(1, 7), [0, 0, 0, 7, 0, 0, 0, 15]);
  assert.deepEqual(made(2, 7, 8), [0, 0, 7, 8, 0, 0, 15, 15]);
  assert.deepEqual(made(4, 5, 6, 7, 8), [5, 6, 7, 8, 15, 15, 15, 15]);
  assert.deepEqual(Array.from(toLevels(Float64Array.of(0, 0, 0, 7, 0, 0, 0, 1), profile)), made(1, 7)); // whole, as before
  assert.deepEqual(Array.from(toLevels(Float64Array.of(0, 0, 0, 7, 0.01, 0, 0.02, 1.02), profile)), made(1, 7)); // rounded
  for (const presence of [[0, 0, 0.04, 1], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0.5, 1], [0, 1, 0, 1]]) {
    assert.throws(() => toLevels(Float64Array.of(0, 0, 0, 7, ...presence), profile), { code: "bad_shape", message: /is the presence/ });
  }
  for (const [steps, count] of [[5, 5], [8, 8], [0, 0], [2, 4], [1.5, 3], [-1, -1]]) {
    const wrong = { steps, values: new Float64Array(Math.max(count, 0)) };
    assert.throws(() => toLevels(wrong, profile), { code: "bad_shape", message: /tiny takes 1 features.* 1 to 4 steps/ });
  }
  assert.throws(() => toLevels({ steps: 1, values: [7] }, profile), { code: "out_of_levels" });
  const other = await readProfile(PROFILE);
  assert.throws(() => toLevels({ steps: 1, values: new Float64Array(1) }, other), { code: "bad_shape", message: /takes no sequences/ });
  for (const wrong of [{ input_sequences: 1 }, { input_shape: [8], input_encoding: null }, { input_shape: [1, 8], input_encoding: null }]) {
    await assert.rejects(readProfile({ ...sequences, ...wrong }), { code: "malformed" });
  }
});

test("logits of the exact profile are whole multiples of their step", async () => {
  const profile = await readProfile({ ...PROFILE, turns_to_logits: 256, logit_step: 2 });
  assert.deepEqual(Array.from(logitsOf(profile, Float64Array.of(0.0391, -0.0117))), [10, -2]);
});

test("images become the levels that Python makes of them", async () => {
  const profile = await readProfile(PROFILE);
  assert.deepEqual(Array.from(toLevels(Uint8Array.of(0, 8, 9, 255), profile)), [0, 0, 1, 15]);
  assert.deepEqual(Array.from(toLevels(Float32Array.of(0, 0.1, 0.5, 1), profile)), [0, 2, 8, 15]); // 1.5 and 7.5 go to the even one
  assert.throws(() => toLevels(new Uint8Array(3), profile), { code: "bad_shape" });
  assert.throws(() => toLevels(Float64Array.of(0, 0, 0, 1.1), profile), { code: "out_of_levels" });
  assert.throws(() => toLevels(Float64Array.of(0, 0, 0, NaN), profile), { code: "out_of_levels" });
  assert.throws(() => toLevels([0, 0, 0, 1], profile), { code: "out_of_levels" });
  const data = Uint8ClampedArray.of(255, 255, 255, 255, 0, 0, 0, 255, 255, 0, 0, 255, 0, 0, 255, 255);
  assert.deepEqual(Array.from(fromCanvas({ width: 2, height: 2, data }, profile)), [255, 0, 76, 29]);
  assert.throws(() => fromCanvas({ width: 4, height: 1, data }, profile), { code: "bad_shape" });
  const stroke = (ink) => ({ width: 2, height: 2, data: Uint8ClampedArray.of(ink, ink, ink, 255, ink, ink, ink, 51, 0, 0, 0, 0, 0, 0, 0, 0) });
  assert.deepEqual(Array.from(fromCanvas(stroke(0), profile)), [0, 204, 255, 255]); // on a canvas that was never filled: on white
  assert.deepEqual(Array.from(fromCanvas(stroke(255), profile)), [255, 51, 0, 0]);
  assert.throws(() => fromCanvas({ width: 2, height: 2, data: new Uint8ClampedArray(16) }, profile), { code: "bad_shape", message: /fully transparent/ });
});

test("texts of a server are cut to what can be shown", () => {
  assert.equal(printable("a\u001b[31mb\u202e"), "a\uFFFD[31mb\uFFFD");
  assert.equal(printable("x".repeat(5000)).length, 1000);
});

test("events are read across chunks, and one without end is refused", () => {
  const reader = new EventReader();
  assert.deepEqual(reader.feed(bytes(": ping\nid: 7\nevent: progress\nda")), []);
  assert.deepEqual(reader.feed(bytes("ta: {\r\ndata:}\n\n")), [{ name: "progress", data: "{\n}", id: "7" }]);
  assert.throws(() => reader.feed(bytes(`data: ${"x".repeat(70_000)}`)), { code: "too_large" });
  assert.throws(() => new EventReader().feed(Uint8Array.of(0xff, 0xfe)), { code: "malformed" });
  assert.throws(() => { const idle = new EventReader(); for (;;) idle.feed(bytes(":\n".repeat(10_000))); }, { code: "too_large" });
});

test("an answer must follow the protocol and be the one that was asked for", () => {
  const made = (header, ...rows) => {
    const text = bytes(JSON.stringify(header));
    const content = Buffer.concat([text, ...rows]);
    return { status: 200, headers: new Headers({ "Inference-Header-Content-Length": String(text.length) }), content: new Uint8Array(content) };
  };
  const header = { id: "r", parameters: { server_seconds: 1.5 } };
  const row = Buffer.from([2, 0, 0, 0, 8, 9]);
  const good = parseAnswer(made(header, row), "r", 1);
  assert.deepEqual([good.serverSeconds, Array.from(good.logits[0])], [1.5, [8, 9]]);
  for (const bad of [
    made({ ...header, id: "other" }, row), made(header), made(header, row, row), made(header, row.subarray(0, 5)), made(header, row.subarray(0, 2)),
    made({ id: "r", parameters: {} }, row), { ...made(header, row), headers: new Headers() },
    { ...made(header, row), headers: new Headers({ "Inference-Header-Content-Length": "999" }) },
  ]) assert.throws(() => parseAnswer(bad, "r", 1), { code: "malformed" });
});

test("a problem becomes the error of its code; an answer without end is cut", async () => {
  answer = (_, response) => response.writeHead(404, { "Content-Type": "application/problem+json" }).end('{"code":"unknown_key","detail":"none"}');
  await assert.rejects(exchange().send({ method: "GET", path: "/" }), { code: "unknown_key", message: "none" });
  answer = (_, response) => response.end(Buffer.alloc(4096));
  await assert.rejects(exchange().send({ method: "GET", path: "/", answerLimit: 100 }), { code: "too_large" });
  answer = (_, response) => response.writeHead(302, { Location: "/elsewhere" }).end();
  await assert.rejects(exchange().send({ method: "GET", path: "/" }), { code: "unreachable" });
  answer = () => {};
  await assert.rejects(exchange().send({ method: "GET", path: "/", silenceSeconds: 0.1 }), { code: "unreachable", message: /0.1 s/ });
});

test("a call is sent again while that may help, with the same body", async () => {
  const bodies = [];
  answer = async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    bodies.push(body);
    if (bodies.length < 3) response.writeHead(503, { "Content-Type": "application/problem+json" }).end('{"code":"not_ready","detail":""}');
    else response.end("good");
  };
  const sent = [];
  const got = await exchange(10).send({ method: "PUT", path: "/", body: bytes("keys"), sent: (count) => sent.push(count) });
  assert.equal(new TextDecoder().decode(got.content), "good");
  assert.deepEqual(bodies, ["keys", "keys", "keys"]);
  assert.equal(sent.at(-1), 4);
  bodies.length = 0;
  await assert.rejects(exchange(10).send({ method: "POST", path: "/" }), { code: "not_ready" }); // it might do its work twice
});

test("a job is followed over a stream that breaks", async () => {
  const seen = [];
  answer = (request, response) => {
    if (!request.url.endsWith("/events")) return response.end(JSON.stringify(JOB));
    const last = request.headers["last-event-id"];
    const state = last ? "completed" : "progress";
    const job = last ? { ...JOB, state: "completed" } : JOB;
    return response.end(`event: ${state}\nid: ${last ? 2 : 1}\ndata: ${JSON.stringify(job)}\n\n`);
  };
  const status = await follow(exchange(), "job1", ({ state }) => seen.push(state), 60);
  assert.equal(status.state, "completed");
  assert.deepEqual(seen, ["in_progress", "in_progress", "completed"]);
  await assert.rejects(follow(exchange(), "other", () => {}, 60), { code: "malformed" });
  await assert.rejects(follow(exchange(), "../keys", () => {}, 60), { code: "unknown_job" });
});

test("an API key goes over https or to this machine alone, and never into an error", () => {
  assert.throws(() => new Transport("http://he.example.org", "key"), { code: "insecure_transport" });
  assert.throws(() => new Transport("https://he.example.org", "ke y\n2"), { code: "unauthorized" });
  assert.throws(() => new Transport("ftp://he.example.org"), { code: "unreachable" });
  assert.throws(() => new Transport("https://user:pass@he.example.org"), { code: "unreachable" });
  for (const url of ["https://he.example.org", "http://127.0.0.1:8000", "http://localhost", "http://[::1]:1"]) new Transport(url, "key");
});
