"""Noise of each primitive, measured with the secret keys, against its formula (he_layers.crypto.noise)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.progress import watched
from ciphershift.he_layers.crypto import ckks, lwe, noise, packing, params
from ciphershift.he_layers.crypto.ciphertexts import Binding, LweCiphertextList
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.native import _kernel

Errors = NDArray[np.float64]
KEY_ID = "00" * 32  # nothing is sent anywhere
BINDING = Binding(key_id=KEY_ID, request=KEY_ID, program=KEY_ID)
THREADS = 2
LOGITS = 10


class Laboratory:
    """One client's keys on both sides, and primitives that return their errors in turns."""

    def __init__(self, parameter_set: ParameterSet) -> None:
        self.params = parameter_set
        self.keys = ClientKeys.generate(parameter_set)
        self.sent = self.keys.evaluation_keys(THREADS)
        self.server = self.sent.expand(THREADS)
        self.rng = np.random.default_rng()

    def fresh(self, count: int) -> Errors:
        """Encrypt values and extract them as LWE ciphertexts."""
        size = self.params.input_ring.ring_degree
        errors = []
        for _ in range(-(-count // size)):
            values = self.rng.uniform(-0.2, 0.2, size)
            rows = lwe.sample_extract(ckks.encrypt(self.keys, KEY_ID, values))
            errors.append(phases(rows.data, self.keys.input_secret) - values)
        return np.concatenate(errors)[:count]

    def shift_linear(self, count: int) -> Errors:
        """Sum sixteen fresh ciphertexts with the weights 1, -2, 4, -8, ...: its ratio of noise is the weights' norm."""
        inputs = self.params.input_ring.ring_degree
        weights = np.tile([1, -2, 4, -8], 4)
        errors = []
        for _ in range(-(-count // (inputs // 16))):
            values = self.rng.uniform(-0.002, 0.002, inputs)
            x = lwe.sample_extract(ckks.encrypt(self.keys, KEY_ID, values))
            row, column = np.repeat(np.arange(inputs // 16), 16), np.arange(inputs)
            matrix = lwe.ShiftMatrix.from_entries(inputs // 16, inputs, row, column, np.tile(weights, inputs // 16))
            sums = lwe.linear(x, matrix, threads=THREADS)
            errors.append(phases(sums.data, self.keys.input_secret) - values.reshape(-1, 16) @ weights)
        return np.concatenate(errors)[:count]

    def key_switch(self, source: NDArray[np.int8], count: int) -> Errors:
        """Switch noiseless ciphertexts under `source` to the small key."""
        values = self.rng.uniform(-0.25, 0.25, count)
        switched = lwe.key_switch(self._encrypted(values, source), self.server, threads=THREADS)
        return phases(switched.data, self.keys.small_lwe_key) - values

    def modulus_switch(self, count: int) -> Errors:
        """Round noiseless ciphertexts under the small key to the 2N grid."""
        values = self.rng.uniform(-0.25, 0.25, count)
        return self._points(self._switched(values)) / (2 * self.params.polynomial_size) - values

    def bootstrap(self, count: int) -> Errors:
        """Look up a random table: the result against the table at the very point that was looked up."""
        size, gadget = self.params.polynomial_size, self.params.pbs
        switched = self._switched(self.rng.uniform(-0.5, 0.5, count))
        point = self._points(switched) % (2 * size)
        table = self.rng.uniform(-0.25, 0.25, (1, size))
        rows = _kernel.blind_rotate(
            switched,
            table,
            np.zeros(count, np.int32),
            self.server.fourier_bsk,
            base_log=gadget.base_log,
            levels=gadget.levels,
            grouping_factor=self.params.grouping_factor,
            block_length=self.params.block_length,
            threads=THREADS,
        )
        want = np.where(point < size, table[0, point % size], -table[0, point % size])
        return np.asarray(phases(rows, self.keys.big_lwe_key) - want)

    def packing(self, count: int, **changes: float) -> Errors:
        """Pack noiseless ciphertexts ten by ten and decrypt, with changes to what only packing reads of the parameters."""
        parameter_set = replace(self.params, **changes)  # type: ignore[arg-type]
        keys, server = replace(self.keys, params=parameter_set), replace(self.server, params=parameter_set)
        errors = []
        for _ in range(-(-count // LOGITS)):
            values = self.rng.uniform(-0.45, 0.45, LOGITS)
            answer = packing.packing_key_switch(self._encrypted(values, self.keys.big_lwe_key), server, BINDING)
            errors.append(ckks.decrypt(keys, answer) - values)
        return np.concatenate(errors)[:count]

    def packing_key_switch(self, count: int) -> Errors:
        """Pack without flooding and with words so fine that neither hides the noise of the key switches."""
        return self.packing(count, flooding_log2_std_dev=-45.0, answer_bits=40)

    def _encrypted(self, values: Errors, key: NDArray[np.int8]) -> LweCiphertextList:
        mask = self.rng.integers(0, 2**32, (len(values), len(key)), dtype=np.uint32)
        body = mask @ key.astype(np.int32).astype(np.uint32) + lwe.to_words(values)
        return LweCiphertextList(np.concatenate([mask, body[:, None]], axis=1))

    def _switched(self, values: Errors) -> NDArray[np.int32]:
        small = self._encrypted(values, self.keys.small_lwe_key)
        return _kernel.modulus_switch(
            small.data, polynomial_size=self.params.polynomial_size, block_length=self.params.block_length
        )

    def _points(self, switched: NDArray[np.int32]) -> NDArray[np.int64]:
        key = self.keys.small_lwe_key.astype(np.int64)
        return switched[:, -1].astype(np.int64) - switched[:, :-1].astype(np.int64) @ key


def phases(rows: NDArray[np.uint32], key: NDArray[np.int8]) -> Errors:
    """Decrypts LWE rows to turns, including their noise."""
    words = rows[:, -1] - rows[:, :-1] @ key.astype(np.int32).astype(np.uint32)
    return np.asarray(words.astype(np.int32) / 2.0**32)


def measure_noise(name: str) -> Iterator[dict[str, Any]]:
    """Yields predicted and measured standard deviation, their ratio and the number of samples, one object per primitive.

    A standard deviation from m samples has a relative error of 1 / sqrt(2 m): 1.8 % from 1500.
    """
    parameter_set = params.get(name)
    laboratory = Laboratory(parameter_set)
    keys = laboratory.keys
    both = np.concatenate([keys.input_secret, keys.big_lwe_key])
    from_input, from_big = noise.input_key_switch_variance(parameter_set), noise.key_switch_variance(parameter_set)
    fresh = noise.fresh_ckks_variance(parameter_set)
    experiments: list[tuple[str, float, int, Callable[[int], Errors]]] = [
        ("fresh_ckks_and_sample_extract", fresh, 4096, laboratory.fresh),
        ("shift_linear", fresh * 4 * (1 + 4 + 16 + 64), 2048, laboratory.shift_linear),
        ("key_switch_from_input", from_input, 1500, lambda count: laboratory.key_switch(keys.input_secret, count)),
        ("key_switch_from_big", from_big, 1500, lambda count: laboratory.key_switch(keys.big_lwe_key, count)),
        ("key_switch_from_both", from_input + from_big, 1500, lambda count: laboratory.key_switch(both, count)),
        ("modulus_switch", noise.modulus_switch_variance(parameter_set), 4000, laboratory.modulus_switch),
        ("bootstrap", noise.pbs_variance(parameter_set), 1500, laboratory.bootstrap),
        ("packing_key_switch", noise.packing_key_switch_variance(parameter_set), 1500, laboratory.packing_key_switch),
        ("packing", noise.packing_variance(parameter_set), 1500, laboratory.packing),
    ]
    for primitive, variance, samples, experiment in watched(experiments, "primitives"):
        errors = (experiment(samples) + 0.5) % 1 - 0.5
        measured = float(np.sqrt(np.mean(errors**2)))
        yield envelope("noise", threads=THREADS) | {
            "params": name,
            "params_id": parameter_set.id,
            "primitive": primitive,
            "predicted_std": variance**0.5,
            "measured_std": measured,
            "ratio": round(measured / variance**0.5, 4),
            "samples": samples,
        }
