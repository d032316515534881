// The kernel in WebAssembly: known answers, distributions, and what it can reach.
import assert from "node:assert/strict";
import { test } from "node:test";

import { freshSeed } from "../dist/bytes.js";
import { CODE } from "../dist/kernel-module.js";
import { Kernel, SEAL_STD_DEV } from "../dist/kernel.js";
import { ParameterSet } from "../dist/params.js";

const kernel = await Kernel.create();
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

test("the module imports nothing", () => {
  assert.deepEqual(WebAssembly.Module.imports(new WebAssembly.Module(Buffer.from(CODE, "base64"))), []);
});

test("ChaCha20 gives the block of RFC 8439, section 2.3.2", () => {
  const key = Uint8Array.from({ length: 32 }, (_, at) => at);
  const words = kernel.chacha20(key, 1, Uint32Array.of(0x09000000, 0x4a000000, 0), 1);
  assert.deepEqual(Array.from(words.slice(0, 4)), [0xe4e7f110, 0x15593bd1, 0x1fdd0f50, 0xc47120a3]);
  assert.equal(words[15], 0x4e3c50a2);
});

test("every registered set has its id, and the sizes that the server expects", async () => {
  const sets = await ParameterSet.all();
  assert.ok(sets.length >= 5);
  assert.equal((await ParameterSet.get("FAST_N512_PAIRS")).bskEntries, 1104);
  assert.equal((await ParameterSet.get("FAST_N512")).answerKeyRows, 25);
  await assert.rejects(ParameterSet.get("00".repeat(32)), { code: "unknown_params" });
});

test("ternary secrets have each coefficient a third of the time", () => {
  const secret = kernel.uniformTernary(freshSeed(), 90_000);
  for (const value of [-1, 0, 1]) {
    const share = secret.filter((coefficient) => coefficient === value).length / secret.length;
    assert.ok(Math.abs(share - 1 / 3) < 6 * Math.sqrt(2 / 9 / secret.length), `${value}: ${share}`); // six deviations: once in 5e8 runs
  }
});

test("binary keys are uniform bits, and blocks have one of their patterns", () => {
  for (const length of [1, 2, 3, 4]) {
    const blocks = 30_000;
    const key = kernel.blockBinary(freshSeed(), blocks, length);
    const counts = new Array(length + 1).fill(0);
    for (let block = 0; block < blocks; block++) {
      const bits = Array.from(key.subarray(block * length, (block + 1) * length));
      assert.ok(bits.reduce((sum, bit) => sum + bit, 0) <= 1);
      counts[bits.indexOf(1) + 1]++;
    }
    const share = 1 / (length + 1);
    for (const count of counts) assert.ok(Math.abs(count / blocks - share) < 6 * Math.sqrt((share * (1 - share)) / blocks), `${length}: ${counts}`);
  }
});

test("an encryption has SEAL's error and decrypts to its values", async () => {
  const params = await ParameterSet.get("TOY_N128");
  const { inputRing: ring } = params;
  const { degree } = ring;
  const modulus = BigInt(ring.modulus);
  const errors = [];
  for (let run = 0; run < 16; run++) {
    const secret = kernel.uniformTernary(freshSeed(), degree);
    const values = Float64Array.from({ length: degree }, (_, at) => ((at % 101) - 50) / 256);
    // c0 with more bits than the modulus has, so that its rounding hides nothing of the error
    const [c0, c1] = kernel.encrypt(secret, ring, values, 40, freshSeed(), freshSeed());
    assert.ok(c1.every((residue) => residue < modulus));
    const product = negacyclic(c1, secret, modulus);
    for (let at = 0; at < degree; at++) {
      const body = BigInt(Math.round((Number(c0[at]) / 2 ** 40) * Number(modulus)));
      const phase = Number((((body + product[at]) % modulus) + modulus) % modulus) - Math.round(values[at] * Number(modulus));
      errors.push(phase > Number(modulus) / 2 ? phase - Number(modulus) : phase);
    }
  }
  assert.ok(errors.every((error) => Math.abs(error) <= 22));
  assert.ok(Math.abs(mean(errors)) < (6 * SEAL_STD_DEV) / Math.sqrt(errors.length));
  const variance = mean(errors.map((error) => error ** 2));
  assert.ok(Math.abs(variance / 10.5 - 1) < 6 * Math.sqrt(2 / errors.length), `variance ${variance}`);
});

test("packed bits come back, at every width", () => {
  for (let bits = 1; bits <= 64; bits++) {
    const values = BigUint64Array.from({ length: 37 }, (_, at) => BigInt.asUintN(bits, (BigInt(at) + 1n) * 0x9e3779b97f4a7c15n));
    assert.deepEqual(kernel.unpackBits(kernel.packBits(values, bits), values.length, bits), values);
  }
});

test("a kernel that was erased refuses to work", async () => {
  const own = await Kernel.create();
  own.uniformTernary(freshSeed(), 1024);
  own.erase();
  assert.throws(() => own.uniformTernary(freshSeed(), 8), { code: "wrong_key" });
});

/** x times s modulo X^N + 1, from the definition. */
function negacyclic(x, secret, modulus) {
  const degree = x.length;
  const plain = Array.from(x, Number);
  const product = new Float64Array(degree);
  for (let i = 0; i < degree; i++) {
    if (!secret[i]) continue;
    for (let j = 0; j < degree; j++) {
      const at = i + j;
      product[at < degree ? at : at - degree] += (at < degree ? 1 : -1) * secret[i] * plain[j]; // exact: below 2^53
    }
  }
  return Array.from(product, (value) => BigInt(value) % modulus);
}
