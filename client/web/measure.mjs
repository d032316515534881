// Times of this package in one run, as JSON: `node client/web/measure.mjs [PARAMETER_SET]`, after `npm run build`. Processor seconds are those of
// the whole process; they hardly depend on what else the machine does.
import { readFile } from "node:fs/promises";
import { cpus } from "node:os";
import { gzipSync } from "node:zlib";

import { bindingOf, decrypt, encrypt, readAnswer } from "./dist/ciphertexts.js";
import { Kind, pack } from "./dist/container.js";
import { ParameterSet } from "./dist/params.js";
import { ClientKeys } from "./dist/secret-keys.js";

const PIXELS = 28 * 28;
const CLASSES = 10;
const RUNS = 20;

async function milliseconds(work) {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

async function median(work) {
  const times = [];
  for (let run = 0; run < RUNS; run++) times.push(await milliseconds(work));
  return times.sort((one, other) => one - other)[RUNS / 2];
}

const params = await ParameterSet.get(process.argv[2] ?? "FAST_N512_BLOCK3");
const keys = await ClientKeys.generate(params);
let evaluation;
const before = process.cpuUsage();
const keyMilliseconds = await milliseconds(async () => (evaluation = await keys.evaluationKeys()));
const { user, system } = process.cpuUsage(before);
const values = Float64Array.from({ length: PIXELS }, (_, at) => (at % 64) / 512);
let image;
const encryptMilliseconds = await median(async () => (image = await encrypt(keys, evaluation.keyId, values)));
const binding = await bindingOf(image, evaluation.keyId, "00".repeat(32));
const words = keys.kernel.packBits(new BigUint64Array(CLASSES).fill(5n), params.answerBits);
const mask = keys.kernel.packBits(BigUint64Array.from({ length: params.answerRing.degree }, (_, at) => BigInt(at)), params.answerBits);
const digests = Buffer.from(binding.request + binding.program, "hex");
const answer = await pack(Kind.PACKED_ANSWER, params.id, binding.keyId, Buffer.concat([digests, words, mask]));
const decryptMilliseconds = await median(async () => decrypt(keys, await readAnswer(keys, answer, binding, CLASSES)));
const bundle = await readFile(new URL("dist/ciphershift.js", import.meta.url));
console.log(JSON.stringify({
  params: params.name,
  cpu: cpus()[0].model,
  node: process.version,
  key_seconds: keyMilliseconds / 1000,
  key_processor_seconds: (user + system) / 1e6,
  key_bytes: evaluation.bytes.length,
  encrypt_milliseconds: encryptMilliseconds,
  decrypt_milliseconds: decryptMilliseconds,
  script_gzipped_bytes: gzipSync(bundle, { level: 9 }).length,
  kernel_memory_bytes: keys.kernel.memoryBytes,
  process_memory_bytes: process.resourceUsage().maxRSS * 1024,
}, null, 1));
