"""Weighted sums of encrypted numbers without a look-up: right, and of a kind of their own on the wire. Their noise is in test_noise.py."""

import numpy as np
import pytest

from ciphershift.errors import BadShapeError, NotConformantError, TooLargeError, WrongKindError, WrongLengthError
from ciphershift.he_layers.crypto import ckks, noise, packing, params
from ciphershift.he_layers.crypto.ciphertexts import (
    Binding,
    CkksCiphertext,
    PackedAnswer,
    ProductCiphertext,
    ciphertext_type,
)
from ciphershift.he_layers.crypto.secret_keys import ClientKeys

TOY = params.get("TOY_N128")
KEYS = ClientKeys.generate(TOY)
SERVER_KEYS = KEYS.evaluation_keys().expand()
KEY_ID, PROGRAM = "00" * 32, "11" * 32
RNG = np.random.default_rng(21)


def errors(inputs: int, outputs: int, *, threads: int = 1, greatest: int = 127) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the decrypted sums of fresh ciphertexts that went over the wire, and the norms of the weights."""
    weight = RNG.integers(-greatest, greatest + 1, (outputs, inputs), dtype=np.int32)
    turns = RNG.uniform(-0.05, 0.05, outputs)
    values = RNG.uniform(-0.4, 0.4, inputs) / np.abs(weight.astype(np.int64)).sum(1).max()
    sent = ckks.encrypt(KEYS, KEY_ID, values, ProductCiphertext).to_bytes()
    x = ProductCiphertext.from_bytes(sent, TOY, KEY_ID, inputs)
    binding = Binding.of([x], PROGRAM)
    answer = packing.packing_products(x, weight, turns, SERVER_KEYS, binding, threads=threads).to_bytes()
    found = ckks.decrypt(KEYS, PackedAnswer.from_bytes(answer, TOY, binding, outputs))
    return found - (weight.astype(np.float64) @ values + turns), np.linalg.norm(weight.astype(np.float64), axis=1)


@pytest.mark.parametrize(
    ("inputs", "outputs", "threads", "greatest"),
    [(1, 1, 1, 127), (20, 3, 2, 127), (2048, 2, 1, 1023), (2049, 33, 3, 127)],
)
def test_sums_are_those_of_the_numbers(inputs: int, outputs: int, threads: int, greatest: int) -> None:
    found, norms = errors(inputs, outputs, threads=threads, greatest=greatest)
    variance = norms**2 * noise.fresh_product_variance(TOY) + noise.packing_variance(TOY, products=True)
    assert np.all(np.abs(found) < 6 * np.sqrt(variance) + 2.0**-TOY.answer_bits)


@pytest.mark.parametrize("weight", [-32768 * 64, 32767 * 64])
def test_weights_have_more_than_sixteen_bits(weight: int) -> None:
    x = ckks.encrypt(KEYS, KEY_ID, np.array([0.4 / weight]), ProductCiphertext)
    binding = Binding.of([x], PROGRAM)
    weights = np.array([[weight]], dtype=np.int32)
    found = ckks.decrypt(KEYS, packing.packing_products(x, weights, np.zeros(1), SERVER_KEYS, binding))
    assert abs(found[0] - 0.4) < 7 * abs(weight) * noise.fresh_product_variance(TOY) ** 0.5 < 0.3


def test_the_two_kinds_of_inputs_are_not_mixed_up() -> None:
    of_products, of_lookups = (ckks.encrypt(KEYS, KEY_ID, np.zeros(3), ciphertext_type(count)) for count in (0, 1))
    assert len(of_products.to_bytes()) == ProductCiphertext.nbytes(TOY, 3) != CkksCiphertext.nbytes(TOY, 3)
    with pytest.raises(TooLargeError):
        CkksCiphertext.from_bytes(of_products.to_bytes(), TOY, KEY_ID, 3)
    with pytest.raises(WrongKindError):
        ProductCiphertext.from_bytes(of_lookups.to_bytes(), TOY, KEY_ID, 3)
    with pytest.raises(BadShapeError, match="CkksCiphertext"):
        packing.packing_products(
            of_lookups, np.ones((1, 3), np.int32), np.zeros(1), SERVER_KEYS, Binding.of([of_lookups], PROGRAM)
        )


def test_what_is_no_encryption_of_so_many_numbers_is_refused() -> None:
    x = ckks.encrypt(KEYS, KEY_ID, np.zeros(3), ProductCiphertext)
    with pytest.raises(WrongLengthError):
        ProductCiphertext.from_bytes(x.to_bytes(), TOY, KEY_ID, 4)
    bare = ProductCiphertext(params=TOY, key_id=KEY_ID, c0=x.c0, c1=np.zeros_like(x.c1))
    with pytest.raises(NotConformantError, match="mask is zero"):
        ProductCiphertext.from_bytes(bare.to_bytes(), TOY, KEY_ID, 3)
    with pytest.raises(BadShapeError, match=r"weights \(1, 4\)"):
        packing.packing_products(x, np.ones((1, 4), np.int32), np.zeros(1), SERVER_KEYS, Binding.of([x], PROGRAM))


def test_one_answer_hardly_shows_the_weights_beside_its_flooding() -> None:
    """The noise that depends on the weights, for a head of 8192 weights of size 30."""
    norm = 30 * np.sqrt(8192)
    assert 2 < -np.log2(noise.flooding_distance(params.get("FAST_N512_BLOCK3"), norm, products=True)) < 8
