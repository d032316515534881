"""The same Program in the clear: ``plain`` as integers, ``run`` as the encrypted circuit would, with the noise predicted for it.

Every layer's circuit (he_layers.layers) is run on torus numbers. At each look-up the input gets the noise of its key switches and of the
modulus switch, is rounded to the 2N grid and wraps modulo one; the result gets the noise of a bootstrap. Noise thus travels through
linear layers with the values that carry it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ciphershift.he_layers.crypto import noise
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.layers.layer import FloatArray, IntArray, LinearLayer, Shape
from ciphershift.he_layers.program import OutputSpec, Program
from ciphershift.protocol.scaling import answered

BATCH = 100
"""Images at a time: a layer's values then stay in the cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CircuitNoise:
    """Standard deviations in turns, and N: what the circuit does to a number.

    Attributes:
        polynomial_size: N; look-ups round their input to 2N points.
        fresh: of an encrypted pixel.
        modulus_switch: added to every look-up's input; where look-ups share masks, with the key switch.
        input_key_switch: added to values under the CKKS key besides, by their key switch or by merging.
        big_key_switch: added to values under the big key besides, likewise.
        lookup: of a look-up's result.
        packing: added to each logit by packing and flooding.
    """

    polynomial_size: int
    fresh: float
    modulus_switch: float
    input_key_switch: float
    big_key_switch: float
    lookup: float
    packing: float

    @classmethod
    def predicted(cls, params: ParameterSet, *, products: bool = False) -> "CircuitNoise":
        """The noise that he_layers.crypto.noise predicts for a parameter set; ``products``: in a network without look-ups."""
        fresh = noise.fresh_product_variance(params) if products else noise.fresh_ckks_variance(params)
        switched, of_input, of_big = noise.lookup_input_variances(params)
        return cls(
            polynomial_size=params.polynomial_size,
            fresh=fresh**0.5,
            modulus_switch=switched**0.5,
            input_key_switch=of_input**0.5,
            big_key_switch=of_big**0.5,
            lookup=noise.pbs_variance(params) ** 0.5,
            packing=noise.packing_variance(params, products=products) ** 0.5,
        )

    @classmethod
    def silent(cls, polynomial_size: int) -> "CircuitNoise":
        """No noise at all; look-ups still round to the 2N grid."""
        return cls(
            polynomial_size=polynomial_size,
            fresh=0.0,
            modulus_switch=0.0,
            input_key_switch=0.0,
            big_key_switch=0.0,
            lookup=0.0,
            packing=0.0,
        )

    def lookup_input(self, under_input_key: bool, under_big_key: bool) -> float:
        """Noise of key switch and modulus switch for a look-up of a value under these keys."""
        return math.hypot(
            self.modulus_switch, under_input_key * self.input_key_switch, under_big_key * self.big_key_switch
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TorusNumbers:
    """Turns [batch, count], not reduced modulo one, and the keys that their ciphertexts would be under."""

    turns: FloatArray
    under_input_key: bool
    under_big_key: bool


class NoisyCircuit:
    """The circuit operations (he_layers.layers.layer.Circuit) on torus numbers."""

    def __init__(self, noise: CircuitNoise, rng: np.random.Generator) -> None:
        """Draws all noise from ``rng``."""
        self.noise = noise
        self.rng = rng

    def encrypt(self, turns: NDArray[np.floating]) -> TorusNumbers:
        """Turns [batch, count] as fresh ciphertexts under the CKKS key."""
        fresh = self._noisy(np.asarray(turns, dtype=np.float64), self.noise.fresh)
        return TorusNumbers(turns=fresh, under_input_key=True, under_big_key=False)

    def linear(self, x: TorusNumbers, layer: LinearLayer, shape: Shape) -> TorusNumbers:
        """The layer's integer combinations."""
        batch = len(x.turns)
        return replace(x, turns=layer.combine(x.turns.reshape(batch, *shape)).reshape(batch, -1))

    def add_constant(self, x: TorusNumbers, turns: FloatArray) -> TorusNumbers:
        """Each value plus its constant."""
        return replace(x, turns=x.turns + turns)

    def add(self, a: TorusNumbers, b: TorusNumbers) -> TorusNumbers:
        """Sum, under the keys of both."""
        return TorusNumbers(
            turns=a.turns + b.turns,
            under_input_key=a.under_input_key or b.under_input_key,
            under_big_key=a.under_big_key or b.under_big_key,
        )

    def subtract(self, a: TorusNumbers, b: TorusNumbers) -> TorusNumbers:
        """Difference, under the keys of both."""
        return self.add(a, replace(b, turns=-b.turns))

    def select(self, x: TorusNumbers, index: IntArray) -> TorusNumbers:
        """The values at the given places."""
        return replace(x, turns=x.turns[:, index])

    def join(self, parts: Sequence[TorusNumbers]) -> TorusNumbers:
        """All parts, one after the other, under the keys of all."""
        return TorusNumbers(
            turns=np.concatenate([part.turns for part in parts], axis=1),
            under_input_key=any(part.under_input_key for part in parts),
            under_big_key=any(part.under_big_key for part in parts),
        )

    def lookup(
        self,
        x: TorusNumbers,
        tables: FloatArray,
        table_index: NDArray[np.int32],
        second: NDArray[np.int32] | None = None,
    ) -> TorusNumbers:
        """Key switch, modulus switch, table, bootstrap noise."""
        std = self.noise.lookup_input(x.under_input_key, x.under_big_key)
        size = self.noise.polynomial_size
        point = np.rint(self._noisy(x.turns, std) * (2 * size)).astype(np.int64) % (2 * size)
        whole_turn = np.concatenate([tables, -tables], axis=1)
        places = [point] if second is None else [point, (point + second[table_index]) % (2 * size)]
        rows = table_index.astype(np.int64) * (2 * size)
        found = np.concatenate([whole_turn.reshape(-1)[place + rows] for place in places], axis=1)
        return TorusNumbers(turns=self._noisy(found, self.noise.lookup), under_input_key=False, under_big_key=True)

    def decrypt(self, x: TorusNumbers, output: OutputSpec) -> FloatArray:
        """Turns in [-1/2, 1/2) after packing, [batch, answer_values]."""
        turns = self._noisy(answered(x.turns, output.refinement), self.noise.packing)
        return turns - np.floor(turns + 0.5)

    def _noisy(self, turns: FloatArray, std: float) -> FloatArray:
        return turns + self.rng.standard_normal(turns.shape, dtype=np.float32) * std if std else turns


def plain(program: Program, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Integer logits [count, classes] of the Program without noise: the plaintext network.

    Raises:
        BadShapeError: images are not uint8 [count, C, H, W] of the Program's shape.
    """
    return np.concatenate([_plain(program, chunk) for chunk in _chunks(program, images)])


def run(program: Program, params: ParameterSet, images: NDArray[np.uint8], rng: np.random.Generator) -> FloatArray:
    """Logits [count, classes] as the client would decrypt them, with the noise predicted for ``params``.

    Raises:
        BadShapeError: images are not uint8 [count, C, H, W] of the Program's shape.
    """
    noise = CircuitNoise.predicted(params, products=not program.lookups)
    return run_with(program, noise, images, rng)


def run_with(program: Program, noise: CircuitNoise, images: NDArray[np.uint8], rng: np.random.Generator) -> FloatArray:
    """Like ``run`` with noise of any size."""
    circuit = NoisyCircuit(noise, rng)
    logits = []
    for chunk in _chunks(program, images):
        pixels = circuit.encrypt(chunk.reshape(len(chunk), -1).astype(np.float64) * program.input.delta)
        for _, result in program.walk(circuit, pixels, noise.polynomial_size):
            last = result
        logits.append(program.logits(circuit.decrypt(last, program.output)))
    return np.concatenate(logits)


def _plain(program: Program, integers: IntArray) -> IntArray:
    for _, result in program.traverse(
        integers, lambda parts: np.concatenate(parts, axis=1), lambda stage, x: stage.layer.plain(x)
    ):
        last = result
    return last


def _chunks(program: Program, images: NDArray[np.uint8]) -> list[IntArray]:
    integers = program.integers(images)
    return [integers[start : start + BATCH] for start in range(0, max(len(integers), 1), BATCH)]
