"""The client's CKKS: torus values in, ciphertext out, and the packed answer back to torus values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError, NotConformantError, WrongParamsError
from ciphershift.he_layers.crypto import seal
from ciphershift.he_layers.crypto.ciphertexts import CkksCiphertext, PackedAnswer, to_modulus
from ciphershift.he_layers.crypto.secret_keys import ClientKeys


def encrypt(
    keys: ClientKeys, key_id: str, values: NDArray[np.floating], kind: type[CkksCiphertext] = CkksCiphertext
) -> CkksCiphertext:
    """Encrypts values of the torus, one per coefficient, in as many ring elements as they need.

    Args:
        keys: the client's secrets.
        key_id: id of the evaluation keys that the server will use on it.
        values: float64 [messages], in [-1/4, 1/4] (SEAL's encoder takes no more).
        kind: of the ciphertext (ciphertexts.ciphertext_type).

    Raises:
        BadShapeError: no values, or not a vector.
        NotConformantError: a value lies outside.
        WrongKeyError: the keys were erased.

    Noise: noise.fresh_ckks_variance, or noise.fresh_product_variance.
    """
    keys.require_usable()
    params, ring = keys.params, kind.ring(keys.params)
    if values.ndim != 1 or not len(values):
        raise BadShapeError(f"values of shape {values.shape} cannot be encrypted: give a vector of at least one")
    if not np.all(np.abs(values) <= 0.25):
        raise NotConformantError("a value lies outside [-1/4, 1/4] of the torus; lower the program's input delta")
    coefficients = np.zeros((-(-len(values) // ring.ring_degree), ring.ring_degree))
    coefficients.reshape(-1)[: len(values)] = values * ring.modulus
    elements = [seal.encrypt(ring, getattr(keys, kind.secret), row) for row in coefficients]
    bodies = np.concatenate([c0 for c0, _ in elements])[: len(values)]
    masks = np.stack([c1 for _, c1 in elements])
    return kind(
        params=params,
        key_id=key_id,
        c0=to_modulus(bodies, ring.modulus, 1 << kind.body_bits(params)),
        c1=to_modulus(masks, ring.modulus, kind.mask_values(params)),
    )


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
    c0, c1 = (to_modulus(part, scale, ring.modulus) for part in (answer.c0, answer.c1))
    step = ring.ring_degree >> (len(c0) - 1).bit_length()
    full = np.zeros(ring.ring_degree, dtype=np.uint64)
    full[: len(c0) * step : step] = c0
    message = seal.decrypt(ring, keys.answer_secret, np.stack([full, c1]))[: len(c0) * step : step] / ring.modulus
    return np.asarray(np.rint(((message + 0.5) % 1.0 - 0.5) * scale) / scale)
