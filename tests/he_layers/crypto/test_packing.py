"""Logits in one answer: each comes back from its own place, whatever their number and that of the threads."""

import numpy as np
import pytest

from ciphershift.he_layers.crypto import ckks, packing, params
from ciphershift.he_layers.crypto.ciphertexts import Binding, LweCiphertextList
from ciphershift.he_layers.crypto.noise import packing_variance
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.native import _kernel

TOY = params.get("TOY_N128")
KEYS = ClientKeys.generate(TOY)
SERVER_KEYS = KEYS.evaluation_keys().expand()
BINDING = Binding(key_id="00" * 32, request="00" * 32, program="00" * 32)
RNG = np.random.default_rng(11)


def rows(turns: np.ndarray) -> LweCiphertextList:
    """Noiseless ciphertexts of these values under the big key."""
    masks = RNG.integers(0, 2**32, (len(turns), TOY.big_dimension), dtype=np.uint32)
    bodies = masks @ KEYS.big_lwe_keys[0].astype(np.uint32) + np.rint(turns * 2**32).astype(np.int64).astype(np.uint32)
    return LweCiphertextList(np.column_stack([masks, bodies]))


@pytest.mark.parametrize("count", [1, 2, 3, 10, 33, 200])
def test_every_logit_comes_back_from_its_own_place(count: int) -> None:
    turns = RNG.uniform(-0.4, 0.4, count)
    answer = packing.packing_key_switch(rows(turns), SERVER_KEYS, BINDING, threads=2)
    errors = ckks.decrypt(KEYS, answer) - turns
    assert np.abs(errors).max() < 6 * np.sqrt(packing_variance(TOY)) + 2.0**-TOY.answer_bits


@pytest.mark.parametrize("count", [1, 3, 10, 33])
def test_threads_do_not_change_an_answer(count: int) -> None:
    x, gadget = rows(RNG.uniform(-0.4, 0.4, count)).data, TOY.answer
    one, three = (
        _kernel.packing_key_switch(
            x,
            SERVER_KEYS.answer_key,
            modulus=TOY.answer_ring.modulus,
            base_log=gadget.base_log,
            levels=gadget.levels,
            error_std_dev=3.2,
            flooding_std_dev=100.0,
            seed=bytes(32),
            threads=threads,
        )
        for threads in (1, 3)
    )
    assert np.array_equal(one, three)


def test_key_switches_are_one_for_each_logit_each_pair_of_trees_and_each_step_of_the_trace() -> None:
    ring = params.get(params.DEFAULT).answer_ring
    assert ring.ring_degree == 2048
    assert [packing.key_switches(count, ring) for count in (1, 2, 10, 1000)] == [12, 13, 32, 2024]
