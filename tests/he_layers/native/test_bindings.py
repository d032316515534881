"""The edge between Python and C++: whatever sizes, types and values come together, a call gives a result or a Python error.

`make sanitize` runs this file with a kernel that checks every memory access and every overflow.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ciphershift.he_layers.native import _kernel

EXAMPLES = int(os.environ.get("CIPHERSHIFT_TEST_EXAMPLES", "25"))
PRIME = 4188161
N, K, BITS, TILE = 128, 1, 4, 32
SEED = bytes(32)
RNG = np.random.default_rng(11)


def words(dtype: type, *shape: int) -> np.ndarray:
    return RNG.integers(0, 64, shape).astype(dtype)


CALLS: dict[str, Callable[[], dict[str, Any]]] = {
    "chacha20": lambda: {"key": SEED, "counter": 1, "nonce": words(np.uint32, 3), "blocks": 5},
    "uniform_binary": lambda: {"seed": SEED, "count": 40, "index": 2},
    "block_binary": lambda: {"seed": SEED, "blocks": 7, "length": 3},
    "gaussian": lambda: {"seed": SEED, "count": 33, "std_dev": 1.5},
    "ntt_forward": lambda: {"x": words(np.uint64, 64), "modulus": PRIME},
    "ntt_inverse": lambda: {"x": words(np.uint64, 64), "modulus": PRIME},
    "key_switch_key_bodies": lambda: {
        "input_keys": words(np.int8, 2, 20) % 2,
        "output_keys": words(np.int8, 2, 12) % 2,
        "base_log": 3,
        "levels": 4,
        "std_dev": 1e-4,
        "first_row": 2,
        "mask_seed": SEED,
        "noise_seed": SEED,
        "threads": 2,
    },
    "expand_key_switch_key": lambda: {
        "bodies": words(np.uint32, 80, 2),
        "mask_seed": SEED,
        "first_row": 0,
        "output_dimension": 12,
        "threads": 2,
    },
    "bootstrapping_key_bodies": lambda: {
        "bits": words(np.int8, BITS, 1) % 2,
        "glwe_keys": words(np.int8, 1, K, N) % 2,
        "base_log": 20,
        "levels": 2,
        "std_dev": 1e-9,
        "mask_seed": SEED,
        "noise_seed": SEED,
        "body_bits": 40,
        "threads": 2,
    },
    "ring_switch_key_bodies": lambda: {
        "sources": words(np.int8, 2, 3, 2, N) % 3 - 1,
        "glwe_keys": words(np.int8, 2, K, N) % 2,
        "base_log": 20,
        "levels": 2,
        "std_dev": 1e-9,
        "first_entry": 3,
        "mask_seed": SEED,
        "noise_seed": SEED,
        "body_bits": 40,
        "threads": 2,
    },
    "expand_ring_key": lambda: {
        "bodies": words(np.uint64, BITS, 2 * (K + 1), 1, N),
        "mask_seed": SEED,
        "first_entry": 3,
        "glwe_dimension": K,
        "base_log": 20,
        "levels": 2,
        "threads": 2,
    },
    "ring_key_masks": lambda: {
        "mask_seed": SEED,
        "index": 1,
        "rows": 4,
        "glwe_dimension": K,
        "polynomial_size": N,
    },
    "merge": lambda: {
        "x": words(np.uint32, 5, 3 * N + 1),
        "key": words(np.float64, 3, N // 2, K + 2, 4, 2),
        "bodies": 2,
        "base_log": 20,
        "levels": 2,
        "threads": 2,
    },
    "key_switch": lambda: {
        "x": words(np.uint32, 5, 22),
        "key": words(np.uint32, 1, 80, TILE),
        "output_dimension": 12,
        "base_log": 3,
        "levels": 4,
        "binary_key": True,
        "bodies": 2,
        "threads": 2,
    },
    "modulus_switch": lambda: {"x": words(np.uint32, 5, 14), "polynomial_size": N, "block_length": 2, "bodies": 2},
    "blind_rotate": lambda: rotation() | {"split_key": words(np.float64, 4, N // 2, 5, 1, 2)},
    "bootstrap_floor": lambda: rotation(),
    "linear": lambda: {
        "x": words(np.uint32, 6, 13),
        "indptr": np.array([0, 2, 2, 5], dtype=np.int64),
        "indices": np.array([0, 5, 1, 2, 3], dtype=np.int32),
        "exponents": np.array([3, 1, 2, 2, 0], dtype=np.int8),
        "signs": np.array([1, -1, 1, 1, -1], dtype=np.int8),
        "threads": 2,
    },
    "negacyclic_product": lambda: {
        "a": words(np.float64, _kernel.lanes(), N),
        "b": words(np.float64, _kernel.lanes(), N),
    },
    "answer_key_bodies": lambda: answer_key(),
    "expand_answer_key": lambda: {
        "bodies": _kernel.answer_key_bodies(**answer_key()),
        "mask_seed": SEED,
        "modulus": PRIME,
        "base_log": 5,
        "levels": 3,
    },
    "packing_key_switch": lambda: {
        "x": words(np.uint32, 4, 31),
        **packing(),
    },
    "packing_products": lambda: {
        "x": words(np.uint64, 2, 2, 64),
        "weights": words(np.int32, 3, 70),
        "bias": words(np.uint64, 3),
        **packing(),
    },
}


def rotation() -> dict[str, Any]:
    """Rows of two bodies, which there are loops for where k is 4."""
    return {
        "switched": words(np.int32, 3, BITS + 2),
        "tables": words(np.float64, 2, N),
        "table_index": np.array([0, 1, 1, 0, 1], dtype=np.int32),
        "fourier_bsk": words(np.float64, BITS, N // 2, 6, 6, 2),
        "base_log": 23,
        "levels": 1,
        "grouping_factor": 1,
        "block_length": 2,
        "bodies": 2,
        "threads": 2,
    }


def packing() -> dict[str, Any]:
    """What both ways of packing take."""
    return {
        "key": _kernel.expand_answer_key(**CALLS["expand_answer_key"]()),
        "modulus": PRIME,
        "base_log": 5,
        "levels": 3,
        "error_std_dev": 3.2,
        "flooding_std_dev": 10.0,
        "seed": SEED,
        "threads": 2,
    }


def answer_key() -> dict[str, Any]:
    return {
        "big_key": words(np.int8, 30) % 2,
        "secret": words(np.int8, 64) % 2,
        "modulus": PRIME,
        "base_log": 5,
        "levels": 3,
        "std_dev": 3.2,
        "mask_seed": SEED,
        "noise_seed": SEED,
    }


NUMBERS = st.one_of(
    st.integers(-2, 40), st.sampled_from([64, 127, 129, 255, 1024, 2**31 - 1, 2**31, -(2**31), 2**63, 2**64 - 1])
)
SIZES = {"count", "blocks", "length", "output_dimension", "glwe_dimension", "polynomial_size", "rows", "threads"}
"""Sizes of what is made: only our own code chooses them, so they are tried up to what fits the memory."""


def changed(data: st.DataObject, name: str, value: Any) -> Any:
    """An argument that may no longer fit."""
    if isinstance(value, bytes):
        return data.draw(st.binary(max_size=40), label=name)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return data.draw(st.integers(-1, 300) if name in SIZES else NUMBERS, label=name)
    if isinstance(value, float):
        return data.draw(st.floats(0.0, 1e6), label=name)
    how = data.draw(st.sampled_from(["shape", "dtype", "value", "order", "empty"]), label=f"{name} how")
    array: np.ndarray = value.copy()
    if how == "shape":
        axis = data.draw(st.integers(0, array.ndim - 1))
        return np.resize(array, [*array.shape[:axis], data.draw(st.integers(0, 70)), *array.shape[axis + 1 :]])
    if how == "dtype":
        return array.astype(data.draw(st.sampled_from([np.int8, np.uint32, np.int64, np.float32, np.float64])))
    if how == "order":
        return np.asfortranarray(array) if array.ndim > 1 else np.repeat(array, 2)[::2]
    if how == "empty":
        return array[:0]
    place = data.draw(st.integers(0, array.size - 1))
    if array.dtype.kind == "f":
        array.flat[place] = data.draw(st.floats(allow_nan=True, allow_infinity=True))
    else:
        limits = np.iinfo(array.dtype)
        array.flat[place] = data.draw(st.integers(int(limits.min), int(limits.max)))
    return array


def test_every_function_of_the_kernel_is_tried() -> None:
    functions = {name for name in dir(_kernel) if not name.startswith("_") and callable(getattr(_kernel, name))}
    assert functions - {"isa", "lanes"} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_fits_gives_a_result(name: str) -> None:
    assert getattr(_kernel, name)(**CALLS[name]()) is not None


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_a_call_that_does_not_fit_gives_a_result_or_an_error(name: str, data: st.DataObject) -> None:
    arguments = CALLS[name]()
    for wrong in data.draw(st.sets(st.sampled_from(sorted(arguments)), min_size=1, max_size=3), label="wrong"):
        arguments[wrong] = changed(data, wrong, arguments[wrong])
    try:
        result = getattr(_kernel, name)(**arguments)
    except (TypeError, ValueError, MemoryError):
        return
    assert result is not None
