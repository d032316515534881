// Keys at rest: in memory and in a folder, with and without a passphrase.
import assert from "node:assert/strict";
import { chmod, mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { inspect } from "node:util";

import { Keystore, MemoryStore, ParameterSet } from "../dist/index.js";
import { isLocked } from "../dist/passphrase.js";
import { FolderStore } from "../dist/node.js";

const params = await ParameterSet.get("TOY_N128");

async function folder(t) {
  const path = await mkdtemp(join(tmpdir(), "keystore-"));
  t.after(() => rm(path, { recursive: true }));
  return path;
}

test("a pair is made once, and the same one is opened again", async (t) => {
  const path = await folder(t);
  for (const store of [new MemoryStore(), new FolderStore(path)]) {
    const shares = [];
    const [one, other] = [await new Keystore(store).open(params, (share) => shares.push(share)), await new Keystore(store).open(params)];
    assert.equal(one.keyId, other.keyId);
    assert.equal(shares.at(-1), 1);
    assert.deepEqual(await one.clientKeys.toBytes(), await other.clientKeys.toBytes());
  }
  assert.equal((await stat(join(path, params.id, "client.keys"))).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(path), [params.id]);
  await chmod(join(path, params.id, "client.keys"), 0o644);
  await assert.rejects(new Keystore(new FolderStore(path)).open(params), { code: "exposed_key" });
});

test("two that make keys at once end up with the same pair", async (t) => {
  const path = await folder(t);
  const pairs = await Promise.all([1, 2, 3].map(() => new Keystore(new FolderStore(path)).open(params)));
  assert.equal(new Set(pairs.map((pair) => pair.keyId)).size, 1);
});

test("a passphrase seals keys, those that were made without one, too", async () => {
  const store = new MemoryStore();
  const { keyId } = await new Keystore(store).open(params);
  assert.throws(() => new Keystore(store, { passphrase: "" }), { code: "configuration" });
  assert.equal(await new Keystore(store).isSealed(params), false);
  const sealed = new Keystore(store, { passphrase: "correct horse" });
  assert.equal((await sealed.open(params)).keyId, keyId);
  const files = await sealed.export(params);
  assert.ok(isLocked(files["client.keys"]));
  assert.equal(await new Keystore(store).isSealed(params), true);
  await assert.rejects(new Keystore(store).open(params), { code: "locked_key" });
  assert.equal((await new Keystore(store, { ask: () => "correct horse" }).open(params)).keyId, keyId);
});

for (const name of [params.name, "TOY_N128_SHARED2"]) {
  test(`files of two pairs are refused when they are imported, and when they are opened: ${name}`, async () => twoPairs(await ParameterSet.get(name)));
}

async function twoPairs(params) {
  const [one, other] = await Promise.all([1, 2].map(async () => {
    const keystore = new Keystore();
    await keystore.open(params);
    return keystore;
  }));
  const [mine, theirs] = [await one.export(params), await other.export(params)];
  const mixed = { "client.keys": mine["client.keys"], "evaluation.keys": theirs["evaluation.keys"] };
  await assert.rejects(new Keystore().import(params, mixed), { code: "wrong_key" });
  await one.store.replace(`${params.id}/evaluation.keys`, theirs["evaluation.keys"]);
  await assert.rejects(one.open(params), { code: "wrong_key" });
}

test("files are exported, erased and imported; damaged ones are refused", async () => {
  const keystore = new Keystore();
  const { keyId } = await keystore.open(params);
  const files = await keystore.export(params);
  await assert.rejects(keystore.import(params, files), { code: "wrong_key" });
  await keystore.erase(params);
  assert.notEqual((await keystore.open(params)).keyId, keyId);
  await keystore.erase(params);
  await keystore.import(params, files);
  assert.equal((await keystore.open(params)).keyId, keyId);
  const damaged = files["client.keys"].map((byte, at) => (at === 500 ? byte ^ 1 : byte));
  await assert.rejects(new Keystore().import(params, { ...files, "client.keys": damaged }), { code: "digest_mismatch" });
  await assert.rejects(new Keystore().import(params, { ...files, "client.keys": files["evaluation.keys"] }), { code: "too_large" });
  await assert.rejects(new Keystore().import(params, { ...files, "evaluation.keys": files["client.keys"] }), { code: "wrong_kind" });
});

test("keys show nothing when they are printed, and refuse to work when they were erased", async () => {
  const { clientKeys } = await new Keystore().open(params);
  assert.doesNotMatch(inspect(clientKeys, { depth: 9, showHidden: true }), /Int8Array/);
  assert.deepEqual(Object.keys(clientKeys), ["params"]);
  assert.doesNotMatch(JSON.stringify(clientKeys), /secret/i);
  clientKeys.erase();
  assert.throws(() => clientKeys.encryptElement(Float64Array.of(0), false), { code: "wrong_key" });
});
