"""Encrypted against plaintext, in this one process: the last check before a Program is handed to a server.

The only module of this room that may touch secret keys: client and server sides are run here back to back, so nothing is protected, and
nothing needs to be, since the images are our own. See the import contract in pyproject.toml.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ciphershift.he_layers import evaluate, simulate
from ciphershift.he_layers.crypto import ckks, params
from ciphershift.he_layers.crypto.ciphertexts import ciphertext_type
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.program import Program

KEY_ID = "00" * 32  # nothing is sent anywhere
SIMULATIONS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Of one image: logits as decrypted, as the plaintext network gives them, and their simulated deviation, [classes] each."""

    encrypted: NDArray[np.float64]
    plain: NDArray[np.float64]
    simulated_std: NDArray[np.float64]

    @property
    def agrees(self) -> bool:
        """Whether both give the same class."""
        return int(self.encrypted.argmax()) == int(self.plain.argmax())


def verify(program: Program, images: NDArray[np.uint8], *, threads: int) -> Iterator[Comparison]:
    """Each image of uint8 [count, C, H, W], one after the other.

    Raises:
        BadShapeError: the images are not of the Program's shape.
    """
    plain = simulate.plain(program, images) * program.output.scales
    rng, parameter_set = np.random.default_rng(0), params.get(program.params)
    runs = np.stack([simulate.run(program, parameter_set, images, rng) for _ in range(SIMULATIONS)])
    for encrypted, expected, std in zip(
        encrypted_logits(program, images, threads=threads), plain, runs.std(axis=0), strict=True
    ):
        yield Comparison(encrypted=encrypted, plain=expected, simulated_std=std)


def encrypted_logits(program: Program, images: NDArray[np.uint8], *, threads: int) -> Iterator[NDArray[np.float64]]:
    """Logits [classes] of each image, really encrypted, evaluated and decrypted under fresh keys."""
    keys = ClientKeys.generate(params.get(program.params))
    server_keys = keys.evaluation_keys(threads).expand(threads)
    for image in images:
        turns = program.integers(image[None]).reshape(-1).astype(np.float64) * program.input.delta
        ciphertext = ckks.encrypt(keys, KEY_ID, turns, ciphertext_type(program.lookups))
        *_, last = evaluate.run(program, server_keys, [[ciphertext]], threads=threads)
        assert last.answer is not None, "the last item of an evaluation carries the answer"
        yield program.logits(ckks.decrypt(keys, last.answer))
