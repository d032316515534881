"""Keys, ciphertexts and answers cross between the JavaScript and the Python client, both ways."""

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.client import Keystore
from ciphershift.client.keystore import KeyPair
from ciphershift.he_layers.crypto import ckks, lwe, noise, packing, params, pbs
from ciphershift.he_layers.crypto.ciphertexts import Binding, CkksCiphertext, PackedAnswer
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys, ServerKeys
from ciphershift.he_layers.crypto.published import SEAL_STD_DEV
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.native import _kernel
from ciphershift.protocol import container

TOYS = [name for name in params.SETS if name.startswith(params.TOY)]
VALUES = np.arange(-5, 5) / 64
PROGRAM = "ab" * 32
OPEN = """
  import { readFile, writeFile } from "node:fs/promises";
  import { Keystore, ParameterSet } from "./dist/index.js";
  import { FolderStore } from "./dist/node.js";
  import { decrypt, encrypt, readAnswer } from "./dist/ciphertexts.js";
  const [folder, name, passphrase, ...given] = process.argv.slice(1);
  const params = await ParameterSet.get(name);
  const keystore = new Keystore(new FolderStore(folder), passphrase ? { passphrase } : {});
  const { clientKeys, keyId } = await keystore.open(params);
"""
ENCRYPT = f"""{OPEN}
  const data = await encrypt(clientKeys, keyId, Float64Array.from(JSON.parse(given[0])));
  console.log(JSON.stringify([keyId, Buffer.from(data).toString("hex")]));
"""
DECRYPT = f"""{OPEN}
  const binding = {{ keyId, request: given[1], program: given[2] }};
  const turns = decrypt(clientKeys, await readAnswer(clientKeys, new Uint8Array(await readFile(given[0])), binding, Number(given[3])));
  console.log(JSON.stringify(Array.from(turns)));
"""


def looked_up(pair: KeyPair, image: CkksCiphertext) -> tuple[bytes, Binding]:
    """What a server makes of an image: half of each value's distance from -1/4, by look-ups under the CKKS secret and the big key."""
    set_ = pair.client_keys.params
    server: ServerKeys = EvaluationKeys.from_bytes(pair.evaluation_keys.read_bytes(), set_).expand()
    quarter = lwe.to_words(np.full(len(image.c0), 0.25))
    tables = np.arange(set_.polynomial_size) / set_.polynomial_size * [[0.5], [0.25]]
    rows = lwe.add_constant(lwe.sample_extract(image), quarter)
    for table in range(2):
        rows = pbs.pbs(rows, server, tables, np.full(len(rows), table, np.int32))
    binding = Binding.of([image], PROGRAM)
    return packing.packing_key_switch(rows, server, binding).to_bytes(), binding


@pytest.mark.parametrize("name", TOYS)
def test_keys_and_ciphertexts_made_by_javascript_compute_and_open_here(
    name: str, node: Callable[..., Any], tmp_path: Path
) -> None:
    set_ = params.get(name)
    key_id, data = node(ENCRYPT, tmp_path / "keys", name, "", json.dumps(VALUES.tolist()))
    pair = Keystore(tmp_path / "keys").open(set_)
    assert pair.key_id == key_id
    image = CkksCiphertext.from_bytes(bytes.fromhex(data), set_, key_id, len(VALUES))
    answer, binding = looked_up(pair, image)
    (tmp_path / "answer").write_bytes(answer)
    here = ckks.decrypt(pair.client_keys, PackedAnswer.from_bytes(answer, set_, binding, len(VALUES)))
    there = node(DECRYPT, tmp_path / "keys", name, "", tmp_path / "answer", binding.request, PROGRAM, len(VALUES))
    assert np.abs(here - (VALUES + 0.25) / 2).max() < 0.025  # seven deviations of the toys' noise
    assert there == here.tolist()


@pytest.mark.parametrize("name", TOYS)
def test_both_clients_make_the_same_bundle_of_the_same_secrets_and_seeds(
    name: str, node: Callable[..., Any], tmp_path: Path
) -> None:
    """Byte for byte, where the n-th seed that is drawn is 32 bytes of n: each key has a seed of its own, in the same order.

    Noise goes through logarithm and sine of two C libraries, which differ in the last bit of a double: too little to show in a word.
    """
    keys = ClientKeys.generate(params.get(name))
    (tmp_path / "client.keys").write_bytes(keys.to_bytes())
    drawn = itertools.count(1)
    with mock.patch.object(os, "urandom", lambda count: bytes([next(drawn)]) * count):
        here = keys.evaluation_keys()
    key_id = node(
        """
        import { readFile, writeFile } from "node:fs/promises";
        import { ParameterSet } from "./dist/index.js";
        import { ClientKeys } from "./dist/secret-keys.js";
        const [folder, name] = process.argv.slice(1);
        const data = new Uint8Array(await readFile(`${folder}/client.keys`));
        const keys = await ClientKeys.fromBytes(data, await ParameterSet.get(name));
        let drawn = 0;
        crypto.getRandomValues = seed => seed.fill(++drawn);
        const { keyId, bytes } = await keys.evaluationKeys();
        await writeFile(`${folder}/evaluation.keys`, bytes);
        console.log(JSON.stringify(keyId));
        """,
        tmp_path,
        name,
    )
    data = (tmp_path / "evaluation.keys").read_bytes()
    there = EvaluationKeys.from_bytes(data, keys.params)
    for field in EvaluationKeys._fields(keys.params):
        assert np.array_equal(getattr(there, field.name), getattr(here, field.name)), field.name
    assert data == here.to_bytes()
    assert key_id == container.read_header(data).key_id


def test_keys_made_by_python_under_a_passphrase_are_opened_by_javascript(
    node: Callable[..., Any], tmp_path: Path
) -> None:
    """However its accents are typed."""
    toy = params.get("TOY_N128")
    pair = Keystore(tmp_path, passphrase="caf\u00e9").open(toy)
    key_id, data = node(ENCRYPT, tmp_path, toy.name, "cafe\u0301", json.dumps(VALUES.tolist()))
    assert key_id == pair.key_id
    image = CkksCiphertext.from_bytes(bytes.fromhex(data), toy, key_id, len(VALUES))
    assert np.abs(phases(pair, image) - VALUES).max() < 1e-4
    with pytest.raises(AssertionError, match="wrong_passphrase"):
        node(ENCRYPT, tmp_path, toy.name, "another", "[0]")


def test_keys_sealed_by_javascript_are_opened_by_python(node: Callable[..., Any], tmp_path: Path) -> None:
    key_id, _ = node(ENCRYPT, tmp_path, "TOY_N128", "correct horse", "[0]")
    assert Keystore(tmp_path, passphrase="correct horse").open(params.get("TOY_N128")).key_id == key_id


def test_ciphertexts_made_by_javascript_have_the_noise_that_pythons_have(
    node: Callable[..., Any], tmp_path: Path
) -> None:
    """3000 pixels: the error's variance within six of its own standard deviations, Python's and JavaScript's alike."""
    toy = params.get("TOY_N128")
    values = np.arange(3000) % 97 / 512  # three ring elements
    key_id, data = node(ENCRYPT, tmp_path, toy.name, "", json.dumps(values.tolist()))
    pair = Keystore(tmp_path).open(toy)
    images = [
        CkksCiphertext.from_bytes(bytes.fromhex(data), toy, key_id, len(values)),
        ckks.encrypt(pair.client_keys, key_id, values),
    ]
    for image in images:
        errors = phases(pair, image) - values
        measured = float(np.mean(errors**2)) / noise.fresh_ckks_variance(toy)
        assert abs(measured - 1) < 6 * np.sqrt(2 / len(values))


def phases(pair: KeyPair, image: CkksCiphertext) -> NDArray[np.float64]:
    """What a ciphertext holds under the secret, noise and all, of the torus."""
    rows = lwe.sample_extract(image).data
    words = rows[:, -1] - rows[:, :-1] @ pair.client_keys.input_secret.astype(np.int32).astype(np.uint32)
    return words.astype(np.int32) / 2.0**32


@pytest.mark.parametrize("name", ["TOY_N128", "TOY_N128_SHARED2"])
def test_both_kernels_make_the_same_keys_of_the_same_seeds(node: Callable[..., Any], name: str) -> None:
    """Masks are the same words; noise goes through logarithm and sine of two C libraries, so a body may be off by one unit, in theory."""
    toy = params.get(name)
    rng = np.random.default_rng(5)
    small = rng.integers(0, 2, (toy.bodies, toy.lwe_dimension), dtype=np.int8)
    glwe = rng.integers(0, 2, (toy.bodies, toy.big_dimension), dtype=np.int8)
    secret = rng.integers(-1, 2, toy.answer_ring.ring_degree, dtype=np.int8)
    sources = rng.integers(-1, 2, (5, toy.bodies, toy.bodies, toy.polynomial_size), dtype=np.int8)
    masks, noise_seed = bytes(range(32)), bytes(range(32, 64))
    found = node(
        """
        import { Kernel } from "./dist/kernel.js";
        import { ParameterSet } from "./dist/params.js";
        const [small, glwe, secret, sources] = process.argv.slice(1, 5).map(text => Int8Array.from(JSON.parse(text)));
        const params = await ParameterSet.get(process.argv[5]), kernel = await Kernel.create();
        const seed = first => Uint8Array.from({ length: 32 }, (_, at) => first + at), seeds = [seed(0), seed(32)];
        const text = words => Array.from(words, String), length = params.lweDimension;
        const bodies = Array.from({ length: params.bodies }, (_, body) => body * length);
        const bits = Int8Array.from([3, 4, 5, 6, 7, 8].flatMap(entry => bodies.map(start => small[start + entry])));
        console.log(JSON.stringify([
          text(kernel.keySwitchKeyBodies(glwe, small, params, params.lweStdDev, 77, ...seeds)),
          text(kernel.bootstrappingKeyBodies(bits, 3, glwe, params, ...seeds)),
          text(kernel.answerKeyBodies(glwe.subarray(0, params.bigDimension), secret, params, ...seeds)),
          text(kernel.ringSwitchKeyBodies(sources.subarray(2 * sources.length / 5), 72, glwe, params, ...seeds)),
        ]));
        """,
        *(json.dumps(key.reshape(-1).tolist()) for key in (small, glwe, secret, sources)),
        name,
    )
    key_switch, bootstrapping, answer, ring_switch = ([int(word) for word in words] for words in found)
    gadget = toy.key_switch
    assert_alike(
        key_switch,
        _kernel.key_switch_key_bodies(
            glwe,
            small,
            base_log=gadget.base_log,
            levels=gadget.levels,
            std_dev=2.0**toy.lwe_log2_std_dev,
            first_row=77,
            mask_seed=masks,
            noise_seed=noise_seed,
            threads=1,
        ),
        32,
    )
    whole = _kernel.bootstrapping_key_bodies(
        np.ascontiguousarray(small.T),
        glwe.reshape(toy.bodies, toy.glwe_dimension, -1),
        base_log=toy.pbs.base_log,
        levels=toy.pbs.levels,
        std_dev=2.0**toy.glwe_log2_std_dev,
        mask_seed=masks,
        noise_seed=noise_seed,
        body_bits=toy.bsk_body_bits,
        threads=1,
    )
    assert_alike(bootstrapping, whole[3:9] >> np.uint64(64 - toy.bsk_body_bits), toy.bsk_body_bits)
    ring = toy.answer_ring
    here = _kernel.answer_key_bodies(
        glwe[0],
        secret,
        modulus=ring.modulus,
        base_log=toy.answer.base_log,
        levels=toy.answer.levels,
        std_dev=SEAL_STD_DEV,
        mask_seed=masks,
        noise_seed=noise_seed,
    )
    there = np.array(answer, dtype=np.uint64).reshape(here.shape)
    for one, other in zip(here, there, strict=True):
        difference = _kernel.ntt_inverse((one + (ring.modulus - other)) % ring.modulus, ring.modulus).astype(np.int64)
        assert np.minimum(difference, ring.modulus - difference).max() <= 1
    switches = _kernel.ring_switch_key_bodies(
        sources,
        glwe.reshape(toy.bodies, toy.glwe_dimension, -1),
        base_log=toy.pbs.base_log,
        levels=toy.pbs.levels,
        std_dev=2.0**toy.glwe_log2_std_dev,
        first_entry=70,
        mask_seed=masks,
        noise_seed=noise_seed,
        body_bits=toy.bsk_body_bits,
        threads=1,
    )
    assert ring_switch == (switches[2:] >> np.uint64(64 - toy.bsk_body_bits)).reshape(-1).tolist()


def assert_alike(words: list[int], known: NDArray[Any], bits: int) -> None:
    apart = (np.array(words, dtype=np.uint64) - known.reshape(-1).astype(np.uint64)) & np.uint64((1 << bits) - 1)
    assert len(words) == known.size
    assert np.minimum(apart, np.uint64((1 << bits) - 1) - apart + np.uint64(1)).max() <= 1
