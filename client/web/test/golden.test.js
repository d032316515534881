// What Python wrote is read here, to the same values: the golden files of format version 1 (tests/golden).
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { decrypt, encrypt, readAnswer } from "../dist/ciphertexts.js";
import { readHeader, unpack } from "../dist/container.js";
import { sha256, toHex } from "../dist/bytes.js";
import { ParameterSet } from "../dist/params.js";
import { unlock } from "../dist/passphrase.js";
import { ClientKeys } from "../dist/secret-keys.js";

const folder = new URL("../../../tests/golden/v1/", import.meta.url);
const file = async (name) => new Uint8Array(await readFile(new URL(name, folder)));
const known = JSON.parse(await readFile(new URL("known.json", folder), "utf8"));
const params = await ParameterSet.get(known.params);
const keys = await ClientKeys.fromBytes(await file("client.keys"), params);

test("the secret keys are written back byte for byte", async () => {
  assert.deepEqual(await keys.toBytes(), await file("client.keys"));
});

test("the passphrase opens the locked keys, another one does not", async () => {
  const locked = await file("locked-client.keys");
  assert.deepEqual(await unlock(locked, params, known.passphrase), await file("client.keys"));
  await assert.rejects(unlock(locked, params, "Golden"), { code: "wrong_passphrase" });
});

test("the answer decrypts to the values that Python found", async () => {
  const request = toHex(await sha256(await file("image.ciphertext")));
  const binding = { keyId: known.key_id, request, program: known.program };
  const turns = decrypt(keys, await readAnswer(keys, await file("logits.answer"), binding, known.values.length));
  assert.deepEqual(Array.from(turns), known.turns);
  await assert.rejects(readAnswer(keys, await file("logits.answer"), { ...binding, request: known.program }, 10), { code: "wrong_answer" });
});

test("a ciphertext made here has the golden one's size and ids, and no two are alike", async () => {
  const [one, other] = [await encrypt(keys, known.key_id, Float64Array.from(known.values)), await encrypt(keys, known.key_id, Float64Array.from(known.values))];
  const golden = readHeader(await file("image.ciphertext"));
  for (const made of [one, other]) {
    const { kind, paramsId, keyId, length } = readHeader(made);
    assert.deepEqual([kind, paramsId, keyId, length], [golden.kind, golden.paramsId, golden.keyId, golden.length]);
  }
  assert.notDeepEqual(one, other);
});

test("the header and the payload are checked in order, each with its own error", async () => {
  const data = await file("image.ciphertext");
  const header = readHeader(data);
  const expected = { kind: header.kind, paramsId: header.paramsId, keyId: header.keyId, payloadBytes: header.length };
  const changed = (at) => data.map((byte, place) => (place === at ? byte ^ 1 : byte));
  await unpack(data, expected);
  const cases = [
    [new Uint8Array([...data, 0]), "too_large"],
    [changed(0), "bad_magic"],
    [data.slice(0, 100), "malformed"],
    [changed(4), "unsupported_version"],
    [changed(7), "wrong_kind"],
    [await file("client.keys"), "secret_key_on_server"],
    [changed(8), "wrong_params"],
    [changed(40), "wrong_key"],
    [changed(72), "wrong_length"],
    [data.slice(0, -1), "malformed"],
    [changed(200), "digest_mismatch"],
  ];
  for (const [bytes, code] of cases) {
    await assert.rejects(unpack(bytes, code === "secret_key_on_server" ? { ...expected, payloadBytes: 1e6 } : expected), { code }, code);
  }
});
