"""The client's CKKS: torus values in, ciphertext out, and the packed answer back to torus values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from he_layers.crypto import seal
from he_layers.crypto.ciphertexts import CkksCiphertext, PackedAnswer
from he_layers.crypto.errors import BadShapeError, NotConformantError, WrongParamsError
from he_layers.crypto.secret_keys import ClientKeys


def encrypt(keys: ClientKeys, key_id: str, values: NDArray[np.float64]) -> CkksCiphertext:
    """Encrypts values of the torus, one per coefficient.

    Args:
        keys: the client's secrets.
        key_id: id of the evaluation keys that the server will use on it.
        values: float64 [messages], in [-1/4, 1/4] (SEAL's encoder takes no more); at most as many as the input ring has coefficients.

    Raises:
        BadShapeError: more values than coefficients.
        NotConformantError: a value lies outside.
        WrongKeyError: the keys were erased.

    Noise: noise.fresh_ckks_variance.
    """
    keys.require_usable()
    params = keys.params
    ring, bits = params.input_ring, params.input_body_bits
    if values.ndim != 1 or not 1 <= len(values) <= ring.ring_degree:
        raise BadShapeError(f"{values.shape} values do not fit into one ciphertext of {ring.ring_degree} coefficients")
    if not np.all(np.abs(values) <= 0.25):
        raise NotConformantError("a value lies outside [-1/4, 1/4] of the torus; lower the program's input delta")
    coefficients = np.zeros(ring.ring_degree)
    coefficients[: len(values)] = values * ring.modulus
    c0, c1 = seal.encrypt(ring, keys.input_secret, coefficients)
    body = np.rint(c0[: len(values)] * (2.0**bits / ring.modulus)).astype(np.uint64) & np.uint64(2**bits - 1)
    return CkksCiphertext(params=params, key_id=key_id, c0=body, c1=c1)


def decrypt(keys: ClientKeys, answer: PackedAnswer) -> NDArray[np.float64]:
    """Decrypts a packed answer to torus values in [-1/2, 1/2), float64 [messages].

    Values are rounded to 2**-answer_bits, the precision that the answer declares.

    Raises:
        WrongParamsError: the answer was made under other parameters than the keys.
        WrongKeyError: the keys were erased.
    """
    keys.require_usable()
    params = keys.params
    if answer.params != params:
        raise WrongParamsError(f"the answer was made under {answer.params.name}, the keys under {params.name}")
    ring, scale = params.answer_ring, 2**params.answer_bits
    c0, c1 = (
        np.rint(part * (ring.modulus / scale)).astype(np.uint64) % np.uint64(ring.modulus)
        for part in (answer.c0, answer.c1)
    )
    step = ring.ring_degree >> (len(c0) - 1).bit_length()
    full = np.zeros(ring.ring_degree, dtype=np.uint64)
    full[: len(c0) * step : step] = c0
    message = seal.decrypt(ring, keys.answer_secret, np.stack([full, c1]))[: len(c0) * step : step] / ring.modulus
    return np.asarray(np.rint(((message + 0.5) % 1.0 - 0.5) * scale) / scale)
