"""Noise of each primitive, measured with the secret keys, against its formula (he_layers.crypto.noise)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.progress import watched
from ciphershift.he_layers.crypto import ckks, lwe, noise, packing, params, seal
from ciphershift.he_layers.crypto.ciphertexts import Binding, LweCiphertextList, ProductCiphertext, to_modulus
from ciphershift.he_layers.crypto.evaluation_keys import ServerKeys
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.native import _kernel

Errors = NDArray[np.float64]
KEY_ID = "00" * 32  # nothing is sent anywhere
BINDING = Binding(key_id=KEY_ID, request=KEY_ID, program=KEY_ID)
THREADS = 2
LOGITS = 10
SOURCES = ("input", "big", "both")
NO_CHANGES: Mapping[str, float] = {}
UNCOVERED: Mapping[str, float] = {"flooding_log2_std_dev": -45.0, "answer_bits": 40}
"""Of a parameter set, so that neither flooding nor rounding hides the noise of what comes before."""


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
            errors.append(phases(rows, self.keys.input_secret) - values)
        return np.concatenate(errors)[:count]

    def fresh_product(self, count: int) -> Errors:
        """Encrypt values in the answer ring and decrypt them under its secret."""
        ring = self.params.answer_ring
        errors = []
        for _ in range(-(-count // ring.ring_degree)):
            values = self.rng.uniform(-0.2, 0.2, ring.ring_degree)
            x = ckks.encrypt(self.keys, KEY_ID, values, ProductCiphertext)
            bodies = x.c0 / (1 << x.body_bits(self.params))
            mask = to_modulus(x.c1[0], x.mask_values(self.params), ring.modulus)
            product = seal.decrypt(ring, self.keys.answer_secret, np.stack([np.zeros_like(mask), mask])) / ring.modulus
            errors.append(bodies + product - values)
        return np.concatenate(errors)[:count]

    def packing_products(self, count: int) -> Errors:
        """Multiply fresh values in the answer ring, sixteen for each of ten logits, by weights of norm 340, and pack."""
        keys, server = self._with(UNCOVERED)
        weight = np.kron(np.eye(LOGITS), np.resize([85, -85], (1, 16))).astype(np.int32)
        errors = []
        for _ in range(-(-count // LOGITS)):
            values = self.rng.uniform(-2e-4, 2e-4, 16 * LOGITS)
            x = ckks.encrypt(keys, KEY_ID, values, ProductCiphertext)
            answer = packing.packing_products(x, weight, np.zeros(LOGITS), server, BINDING)
            errors.append(ckks.decrypt(keys, answer) - weight @ values)
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
            errors.append(phases(sums, self.keys.input_secret) - values.reshape(-1, 16) @ weights)
        return np.concatenate(errors)[:count]

    def key_switch(self, count: int, *, from_input: bool, from_big: bool) -> Errors:
        """Switch noiseless ciphertexts under the input key, the big keys or both to the small keys."""
        values = self._values(0.25, count)
        input_keys = self.keys.input_secret[None, : from_input * len(self.keys.input_secret)]
        big_keys = self.keys.big_lwe_keys[:, : from_big * self.params.big_dimension]
        keys = np.concatenate([input_keys, big_keys], axis=1) if from_input else big_keys
        x = self._encrypted(values, keys, input_words=from_input * len(self.keys.input_secret))
        return phases(lwe.key_switch(x, self.server, threads=THREADS), self.keys.small_lwe_keys) - values

    def merge(self, count: int, *, from_input: bool, from_big: bool) -> Errors:
        """Bring noiseless ciphertexts under the input key, the big key or both to one mask with the next."""
        values = self._values(0.25, count)
        parts = [self.keys.input_secret] * from_input + [self.keys.big_lwe_keys[0]] * from_big
        input_words = from_input * len(self.keys.input_secret)
        x = self._encrypted(values.reshape(-1, 1), np.concatenate(parts)[None], input_words=input_words)
        return phases(lwe.merge(x, self.server, threads=THREADS), self.keys.big_lwe_keys) - values

    def modulus_switch(self, count: int) -> Errors:
        """Round noiseless ciphertexts under the small key to the 2N grid."""
        values = self._values(0.25, count)
        return self._points(self._switched(values)) / (2 * self.params.polynomial_size) - values

    def bootstrap(self, count: int) -> Errors:
        """Look up a random table: the result against the table at the very point that was looked up."""
        return self.two_places(count)[0]

    def second_place(self, count: int) -> Errors:
        """The same at a second place of the table."""
        return self.two_places(count)[1]

    def two_places(self, count: int, place: int | None = None) -> tuple[Errors, Errors]:
        """Errors of both results of one rotation; ``place``: the second one, from 1 to 2N - 1, by default a random one."""
        size, gadget = self.params.polynomial_size, self.params.pbs
        switched = self._switched(self._values(0.5, count))
        point = self._points(switched) % (2 * size)
        table = self.rng.uniform(-0.25, 0.25, (1, size))
        second = np.array([self.rng.integers(1, 2 * size) if place is None else place], np.int32)
        rows = _kernel.blind_rotate(
            switched,
            table,
            np.zeros(point.size, np.int32),
            self.server.fourier_bsk,
            base_log=gadget.base_log,
            levels=gadget.levels,
            grouping_factor=self.params.grouping_factor,
            block_length=self.params.block_length,
            bodies=self.params.bodies,
            threads=THREADS,
            split_key=self.server.split_key,
            second=second,
        )
        whole = np.concatenate([table[0], -table[0]])
        first, other = phases(LweCiphertextList(rows), self.keys.big_lwe_keys[0]).reshape(2, *point.shape)
        return first - whole[point], other - whole[(point + second) % (2 * size)]

    def packing(self, count: int, changes: Mapping[str, float] = NO_CHANGES) -> Errors:
        """Pack noiseless ciphertexts ten by ten and decrypt, with changes to what only packing reads of the parameters."""
        keys, server = self._with(changes)
        errors = []
        for _ in range(-(-count // LOGITS)):
            values = self.rng.uniform(-0.45, 0.45, (LOGITS, 1))
            x = self._encrypted(values, self.keys.big_lwe_keys[:1])
            errors.append(ckks.decrypt(keys, packing.packing_key_switch(x, server, BINDING)) - values[:, 0])
        return np.concatenate(errors)[:count]

    def packing_key_switch(self, count: int) -> Errors:
        """Pack without flooding and with words so fine that neither hides the noise of the key switches."""
        return self.packing(count, UNCOVERED)

    def _with(self, changes: Mapping[str, float]) -> tuple[ClientKeys, ServerKeys]:
        """The keys of both sides under changed parameters."""
        parameter_set = replace(self.params, **changes)  # type: ignore[arg-type]
        return replace(self.keys, params=parameter_set), replace(self.server, params=parameter_set)

    def _values(self, largest: float, count: int) -> Errors:
        """Of so many rows, [count, bodies]."""
        return self.rng.uniform(-largest, largest, (count, self.params.bodies))

    def _encrypted(self, values: Errors, keys: NDArray[np.int8], input_words: int = 0) -> LweCiphertextList:
        mask = self.rng.integers(0, 2**32, (len(values), keys.shape[1]), dtype=np.uint32)
        bodies = mask @ keys.T.astype(np.int32).astype(np.uint32) + lwe.to_words(values)
        return LweCiphertextList(np.concatenate([mask, bodies], axis=1), input_words=input_words, bodies=len(keys))

    def _switched(self, values: Errors) -> NDArray[np.int32]:
        return _kernel.modulus_switch(
            self._encrypted(values, self.keys.small_lwe_keys).data,
            polynomial_size=self.params.polynomial_size,
            block_length=self.params.block_length,
            bodies=self.params.bodies,
        )

    def _points(self, switched: NDArray[np.int32]) -> NDArray[np.int64]:
        n = self.params.lwe_dimension
        products = switched[:, :n].astype(np.int64) @ self.keys.small_lwe_keys.T.astype(np.int64)
        return switched[:, n:].astype(np.int64) - products


def phases(x: LweCiphertextList, keys: NDArray[np.int8]) -> Errors:
    """Decrypts LWE rows to turns, including their noise: [count, bodies] for keys [bodies, dimension], [count] for a single key."""
    products = x.data[:, : x.dimension] @ keys.T.astype(np.int32).astype(np.uint32)
    words = (x.data[:, x.dimension :] if keys.ndim > 1 else x.data[:, x.dimension]) - products
    return np.asarray(words.astype(np.int32) / 2.0**32)


def correlation(errors: Errors) -> float:
    """Of the errors of a row's two bodies, [count, 2]."""
    return float(np.mean(errors[:, 0] * errors[:, 1]) / errors[:, 0].std() / errors[:, 1].std())


def measure_noise(name: str) -> Iterator[dict[str, Any]]:
    """Yields predicted and measured standard deviation, their ratio and the number of samples, one object per primitive.

    Of a set whose look-ups share masks there are errors of each body, and their correlation.

    A standard deviation from m samples has a relative error of 1 / sqrt(2 m): 1.8 % from 1500. Key switches and bootstraps also differ from
    one pair of keys to the next, so that more samples are taken of them.
    """
    parameter_set = params.get(name)
    laboratory = Laboratory(parameter_set)
    from_big = noise.key_switch_variance(parameter_set)
    fresh = noise.fresh_ckks_variance(parameter_set)
    fresh_product = noise.fresh_product_variance(parameter_set)
    products = 340.0**2 * fresh_product + noise.packing_key_switch_variance(parameter_set, products=True)
    experiments: list[tuple[str, float, int, Callable[[int], Errors]]] = [
        ("fresh_ckks_and_sample_extract", fresh, 4096, laboratory.fresh),
        ("fresh_product", fresh_product, 4096, laboratory.fresh_product),
        ("shift_linear", fresh * 4 * (1 + 4 + 16 + 64), 2048, laboratory.shift_linear),
        ("key_switch_from_big", from_big, 6000, partial(laboratory.key_switch, from_input=False, from_big=True)),
        ("modulus_switch", noise.modulus_switch_variance(parameter_set), 4000, laboratory.modulus_switch),
        ("bootstrap", noise.pbs_variance(parameter_set), 3000, laboratory.bootstrap),
        ("second_place", noise.pbs_variance(parameter_set), 3000, laboratory.second_place),
        ("packing_key_switch", noise.packing_key_switch_variance(parameter_set), 1500, laboratory.packing_key_switch),
        ("packing", noise.packing_variance(parameter_set), 1500, laboratory.packing),
        ("packing_products", products, 1500, laboratory.packing_products),
    ]
    shared = parameter_set.bodies > 1
    for source in SOURCES:
        of = {"from_input": source != "big", "from_big": source != "input"}
        if shared:
            variance = noise.merge_variance(parameter_set, **of)
            experiments.append((f"merge_from_{source}", variance, 6000, partial(laboratory.merge, **of)))
        elif source != "big":
            variance = noise.input_key_switch_variance(parameter_set) + of["from_big"] * from_big
            experiments.append((f"key_switch_from_{source}", variance, 6000, partial(laboratory.key_switch, **of)))
    for primitive, variance, samples, experiment in watched(experiments, "primitives"):
        errors = (experiment(samples) + 0.5) % 1 - 0.5
        measured = float(np.sqrt(np.mean(errors**2)))
        result = envelope("noise", threads=THREADS) | {
            "params": name,
            "params_id": parameter_set.id,
            "primitive": primitive,
            "predicted_std": variance**0.5,
            "measured_std": measured,
            "ratio": round(measured / variance**0.5, 4),
            "samples": errors.size,
        }
        if errors.ndim > 1 and shared:
            result |= {"correlation": round(correlation(errors), 4)}
        yield result
