"""Makes the golden files of one format version: `python tests/golden/make.py tests/golden/v1`.

Run once per format version and never again: the files stand for what users have on their disks (product.ciphertext, of a kind that came
later, was made with the keys that were there). All randomness is a stream of SHAKE-256
here, in this script alone; the secrets are drawn from it too, since SEAL takes no seed. The files hold TOY parameters and protect nothing.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

from ciphershift.client._passphrase import lock
from ciphershift.he_layers.crypto import ckks, lwe, packing, params, pbs
from ciphershift.he_layers.crypto.ciphertexts import Binding, CkksCiphertext, ProductCiphertext
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.protocol import container

TOY = params.get("TOY_N128")
PASSPHRASE = "golden"
PROGRAM = hashlib.sha256(b"golden program").hexdigest()
VALUES = np.arange(-5, 5) / 64  # of the torus, one per message


def stream(name: str) -> Callable[[int], bytes]:
    """A deterministic stand-in for os.urandom."""
    position = 0

    def read(count: int) -> bytes:
        nonlocal position
        data = hashlib.shake_256(name.encode()).digest(position + count)[position:]
        position += count
        return data

    return read


def ternary(read: Callable[[int], bytes], count: int) -> np.ndarray:
    return (np.frombuffer(read(4 * count), "<u4") % 3).astype(np.int8) - np.int8(1)


def secret_keys() -> ClientKeys:
    read = stream("secrets")
    bits = np.frombuffer(read(TOY.lwe_dimension + TOY.big_dimension), np.uint8).astype(np.int8) & np.int8(1)
    return ClientKeys(
        params=TOY,
        input_secret=ternary(read, TOY.input_ring.ring_degree),
        answer_secret=ternary(read, TOY.answer_ring.ring_degree),
        small_lwe_key=bits[: TOY.lwe_dimension].copy(),
        glwe_key=bits[TOY.lwe_dimension :].reshape(TOY.glwe_dimension, TOY.polynomial_size).copy(),
    )


def table() -> np.ndarray:
    """Half of the phase, for phases from 0 to 1/2."""
    return (np.arange(TOY.polynomial_size) / (4 * TOY.polynomial_size))[None]


def make(folder: Path) -> None:
    folder.mkdir(parents=True)  # fails where there are golden files already
    keys = secret_keys()
    with mock.patch.object(os, "urandom", stream("evaluation keys")):
        evaluation = keys.evaluation_keys().to_bytes()
    key_id = container.read_header(evaluation).key_id
    # SEAL's own randomness cannot be seeded: these two ciphertexts differ from run to run, which is why the files are kept.
    image, product = ckks.encrypt(keys, key_id, VALUES), ckks.encrypt(keys, key_id, VALUES, ProductCiphertext)
    with mock.patch.object(os, "urandom", stream("answer")):
        server = EvaluationKeys.from_bytes(evaluation, TOY).expand()
        quarter = lwe.to_words(np.full(len(VALUES), 0.25))
        phases = lwe.add_constant(lwe.sample_extract(image), quarter)
        looked_up = pbs.pbs(phases, server, table(), np.zeros(len(VALUES), np.int32))
        answer = packing.packing_key_switch(looked_up, server, Binding.of([image], PROGRAM))
    with mock.patch.object(os, "urandom", stream("locked")):
        locked = lock(keys.to_bytes(), TOY, PASSPHRASE)
    files = {
        "evaluation.keys": evaluation,
        "client.keys": keys.to_bytes(),
        "locked-client.keys": locked,
        "image.ciphertext": image.to_bytes(),
        "logits.answer": answer.to_bytes(),
        "product.ciphertext": product.to_bytes(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    known = {
        "params": TOY.name,
        "key_id": key_id,
        "program": PROGRAM,
        "passphrase": PASSPHRASE,
        "values": VALUES.tolist(),
        "words": words(keys, image),
        "product_words": product_words(keys, product),
        "turns": ckks.decrypt(keys, answer).tolist(),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    (folder / "known.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def words(keys: ClientKeys, image: CkksCiphertext) -> list[int]:
    """The ciphertext's torus words under the secret, noise and all: whole numbers, the same everywhere."""
    rows = lwe.sample_extract(image).data
    found = rows[:, -1] - rows[:, :-1] @ keys.input_secret.astype(np.int32).astype(np.uint32)
    return [int(word) for word in found.astype(np.int32)]


def product_words(keys: ClientKeys, x: CkksCiphertext) -> list[int]:
    """The same of a ciphertext of the answer ring: body, and mask times secret modulo X^N + 1, in units of 2^-32."""
    secret, mask = keys.answer_secret.astype(np.int64), x.c1[0].astype(np.int64)
    turned, place = np.concatenate([-secret, secret]), len(mask) - np.arange(len(mask))
    phases = [(int(body) << 8) + int((mask * turned[place + j]).sum()) for j, body in enumerate(x.c0)]
    return [(phase + 2**31) % 2**32 - 2**31 for phase in phases]


if __name__ == "__main__":
    make(Path(sys.argv[1]))
