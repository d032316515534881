"""Every kind of key and ciphertext that leaves the client, with its estimated bits and the noise found in real ones with the secrets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.crypto import dual_hybrid
from ciphershift.benchmarks.crypto.noise import Errors, Laboratory, phases
from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.progress import watched
from ciphershift.he_layers.crypto import noise, params
from ciphershift.he_layers.crypto.ciphertexts import LweCiphertextList, ProductCiphertext
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.published import PublishedRow
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.crypto.security import published_rows, security_bits
from ciphershift.he_layers.layers import Add, Linear
from ciphershift.he_layers.native import _kernel
from ciphershift.he_layers.program import Program
from ciphershift.server.settings import Settings

SAMPLES = 20_000  # at least, of each kind of key: 0.5 % of a standard deviation
CKKS_SAMPLES = 4096


class OpenedObjects:
    """One client's published objects, opened with its secrets: the errors of every field, in turns."""

    def __init__(self, parameter_set: ParameterSet) -> None:
        self._laboratory = Laboratory(parameter_set)
        self.params = parameter_set
        self.keys: ClientKeys = self._laboratory.keys
        self.sent: EvaluationKeys = self._laboratory.sent

    def errors(self, row: PublishedRow) -> Errors:
        """Returns the errors of a row's fields; masks have none."""
        field = row.fields[0]
        match field:
            case "c0" if row.key == ProductCiphertext.secret:
                return self._laboratory.fresh_product(CKKS_SAMPLES)
            case "c0":
                return self._laboratory.fresh(CKKS_SAMPLES)
            case "input_ksk":
                return self._key_switch_key(self._laboratory.server.input_ksk, self.keys.input_secret[None])
            case "ksk":
                return self._key_switch_key(self._laboratory.server.ksk, self.keys.big_lwe_keys)
            case "bsk":
                return self._bootstrapping_key()
            case "merge_key":
                return self._merge_and_split_keys()
            case "answer_key":
                return self._answer_key()
        raise ValueError(field)

    def _key_switch_key(self, tiles: NDArray[np.uint32], sources: NDArray[np.int8]) -> Errors:
        """Of the first rows, each body under its own key."""
        gadget, size = self.params.key_switch, self.params.lwe_dimension + len(sources)
        count = min(tiles.shape[1], -(-SAMPLES // gadget.levels) * gadget.levels)
        rows = np.concatenate(list(tiles[:, :count]), axis=1)[:, :size]
        units = np.exp2(-gadget.base_log * np.arange(1.0, gadget.levels + 1))
        messages = np.stack([np.outer(source, units).reshape(-1)[:count] for source in sources], axis=1)
        found = phases(LweCiphertextList(rows, bodies=len(sources)), self.keys.small_lwe_keys[: len(sources)])
        return np.asarray((found - messages).reshape(-1))

    def _bootstrapping_key(self) -> Errors:
        k, glwe_keys = self.params.glwe_dimension, self.keys.glwe_keys

        def message(entry: int, part: int, body: int) -> NDArray[np.int64]:
            bit = int(self.keys.bsk_bits[entry, body])
            if part < k:
                return np.asarray(-bit * glwe_keys[body, part].astype(np.int64))
            one = np.zeros(self.params.polynomial_size, dtype=np.int64)
            one[0] = bit * (part == k + body)
            return one

        return self._ring_key(self.sent.bsk, 0, glwe_keys, message)

    def _merge_and_split_keys(self) -> Errors:
        first, glwe_keys, sent = self.params.bsk_entries, self.keys.glwe_keys, self.sent
        others = glwe_keys[1:].reshape(-1, 1, 1, self.params.polynomial_size)
        merging = self._ring_switch_key(sent.merge_key, first, self.keys.merge_sources, glwe_keys)
        splitting = self._ring_switch_key(sent.split_key, first + len(sent.merge_key), others, glwe_keys[:1])
        return np.concatenate([merging, splitting])

    def _ring_switch_key(
        self, key: NDArray[np.uint64], first_entry: int, sources: NDArray[np.int8], targets: NDArray[np.int8]
    ) -> Errors:
        return self._ring_key(
            key, first_entry, targets, lambda entry, part, body: -sources[entry, part, body].astype(np.int64)
        )

    def _ring_key(
        self,
        key: NDArray[np.uint64],
        first_entry: int,
        glwe_keys: NDArray[np.int8],
        message: Callable[[int, int, int], NDArray[np.int64]],
    ) -> Errors:
        """Of the first entries of a key in the look-up ring, [entries, rows, bodies, N], each body under its own key.

        ``message`` takes entry, part and body, and gives what a row of the part holds in units of its level.
        """
        _, rows, bodies, size = key.shape
        # Of each body [k * N, N]: masks times this is <mask, S>.
        products = [np.concatenate([_negacyclic(polynomial) for polynomial in of_body]) for of_body in glwe_keys]
        errors: list[Errors] = []
        for entry in range(min(len(key), -(-SAMPLES // (rows * size)))):
            masks = _kernel.ring_key_masks(
                mask_seed=self.sent.mask_seed,
                index=first_entry + entry,
                rows=rows,
                glwe_dimension=self.params.glwe_dimension,
                polynomial_size=size,
            )
            flat = masks.reshape(rows, -1)
            for row, body in np.ndindex(rows, bodies):
                part, level = divmod(row, self.params.pbs.levels)
                word = key[entry, row, body] - flat[row] @ products[body]
                unit = np.uint64(1 << (64 - self.params.pbs.base_log * (level + 1)))
                errors.append((word - message(entry, part, body).astype(np.uint64) * unit).astype(np.int64) / 2.0**64)
        return np.concatenate(errors)

    def _answer_key(self) -> Errors:
        ring, gadget = self.params.answer_ring, self.params.answer
        q, secret = ring.modulus, self.keys.answer_secret.astype(object)
        secret_ntt = _kernel.ntt_forward((secret % q).astype(np.uint64), q).astype(object)
        errors: list[Errors] = []
        for row, (body, mask) in enumerate(self._laboratory.server.answer_key):
            part, level = divmod(row, gadget.levels)
            if part == 0:
                zeros = np.zeros(ring.ring_degree - self.params.big_dimension)
                source = np.concatenate([self.keys.big_lwe_keys[0], zeros])
            elif row < len(self.sent.answer_key) - 1:
                source = _automorphism(secret, (1 << part) + 1)
            else:
                source = np.zeros(ring.ring_degree)  # the public key
            phase = _kernel.ntt_inverse(
                ((body.astype(object) + mask.astype(object) * secret_ntt) % q).astype(np.uint64), q
            )
            shift = gadget.base_log * (level + 1)
            unit = (q + (1 << (shift - 1))) >> shift
            error = (phase.astype(object) - source.astype(int).astype(object) * unit) % q
            errors.append(((error + q // 2) % q - q // 2).astype(np.float64) / q)
        return np.concatenate(errors)


def _negacyclic(key: NDArray[np.int8]) -> NDArray[np.uint64]:
    """The matrix [N, N] by which a row of coefficients is multiplied with the key modulo X^N + 1."""
    size = len(key)
    at = np.arange(size)[None, :] - np.arange(size)[:, None]
    return np.asarray(np.where(at >= 0, key[at % size], -key[at % size]).astype(np.int64).astype(np.uint64))


def _automorphism(x: NDArray[np.object_], power: int) -> NDArray[np.object_]:
    """x(X^power) modulo X^N + 1."""
    size = len(x)
    at = np.arange(size) * power % (2 * size)
    out = np.zeros(size, dtype=object)
    out[at % size] = np.where(at < size, x, -x)
    return out


def _bits(parameter_set: ParameterSet, last_layer_norm: float, *, products: bool = False) -> float:
    """Minus log2 of the statistical distance that flooding leaves for one logit."""
    return round(-math.log2(noise.flooding_distance(parameter_set, last_layer_norm, products=products)), 2)


def _bits_over_last_layers(parameter_set: ParameterSet) -> dict[str, float]:
    """The same for each model in the zoo under these parameters, by the largest norm of a row of its last layer's weights."""
    bits = {}
    for path in sorted(Settings().models.glob("*/program.json")):
        program = Program.load(path.parent)
        norm = last_norm(program)
        if program.params == parameter_set.name and norm is not None:
            norm *= program.output.refinement or 1  # of the answer that shows most of its error
            bits[program.name] = _bits(parameter_set, norm, products=not program.lookups)
    return bits


def last_norm(program: Program) -> float | None:
    """Greatest norm of the weights behind a logit, those of all views; None if the program ends in something else than weighted sums."""
    last = program.layers[-1]
    summed = [layer for layer in program.layers if layer.name in last.inputs] if isinstance(last, Add) else [last]
    ends = [layer.weight.astype(np.float64) for layer in summed if isinstance(layer, Linear)]
    if len(ends) != len(summed):
        return None
    return float(np.linalg.norm(np.concatenate(ends, axis=1), axis=1).max())


def counted_bits(row: PublishedRow) -> float:
    """Bits of a row by the exact count of guesses, counted now and not taken from the closed form."""
    secret = dual_hybrid.Secret.of(row.secret, row.block_length)
    return dual_hybrid.cheapest(row.dimension, row.log2_std_dev, secret, "exact").bits


def list_published_rows(name: str) -> dict[str, Any]:
    """Returns the published rows of a parameter set with their bits by both counts, the noise found in real objects, and the least bits."""
    parameter_set = params.get(name)
    opened = OpenedObjects(parameter_set)
    rows = []
    for row in watched(published_rows(parameter_set), "published rows"):
        errors = (opened.errors(row) + 0.5) % 1 - 0.5
        measured = float(np.sqrt(np.mean(errors**2)))
        rows.append(
            asdict(row)
            | {
                "modulus_log2": round(row.modulus_log2, 3),
                "log2_std_dev": round(row.log2_std_dev, 3),
                "body_bits": round(row.body_bits, 3),
                "bits": round(row.bits, 1),
                "exact_bits": round(counted_bits(row), 1),
                "wire_log2_std_dev": round(math.log2(row.wire_std_dev), 3),
                "measured_log2_std_dev": round(math.log2(measured), 3),
                "measured_over_stated": round(measured / row.wire_std_dev, 4),
                "samples": len(errors),
            }
        )
    return envelope("security") | {
        "params": parameter_set.name,
        "params_id": parameter_set.id,
        "minimum_bits": round(security_bits(parameter_set), 1),
        "minimum_exact_bits": min(row["exact_bits"] for row in rows),
        "rows": rows,
        "flooding": {
            "log2_std_dev": parameter_set.flooding_log2_std_dev,
            "bits_over_packing": _bits(parameter_set, 0.0),
            "bits_over_last_layer": _bits_over_last_layers(parameter_set),
        },
    }
