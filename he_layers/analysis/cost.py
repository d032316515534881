"""What a Program costs: the operations of its circuit, priced with the times of the primitives on this machine.

In this circuit (he_layers.layers.layer.Circuit) a value is how many ciphertexts there are and under which keys.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ciphershift.he_layers.crypto import packing
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.timing import PrimitiveTimes
from ciphershift.he_layers.layers.layer import FloatArray, IntArray, LinearLayer, Shape, flat_size
from ciphershift.he_layers.program import Program


@dataclass(frozen=True, kw_only=True, slots=True)
class Ciphertexts:
    """A batch: how many, and the keys that they are under."""

    count: int
    under_input_key: bool
    under_big_key: bool

    def dimension(self, params: ParameterSet) -> int:
        """Words of a mask."""
        return self.under_input_key * params.input_ring.ring_degree + self.under_big_key * params.big_dimension


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerWork:
    """What one layer does for one image.

    Attributes:
        layer: its name.
        products: weights that are not 0, over all places, with the batch that they are applied to.
        lookups: batches that are looked up, one for each call.
        packed: logits that are brought into the answer, by the last layer.
        multiplied: numbers that each of these is a weighted sum of, in a Program without look-ups; they fill ring elements.
    """

    layer: str
    products: tuple[tuple[int, Ciphertexts], ...]
    lookups: tuple[Ciphertexts, ...]
    packed: int = 0
    multiplied: int = 0


class WorkCircuit:
    """The circuit operations (he_layers.layers.layer.Circuit) on counts."""

    def __init__(self) -> None:
        self.products: list[tuple[int, Ciphertexts]] = []
        self.lookups: list[Ciphertexts] = []

    def linear(self, x: Ciphertexts, layer: LinearLayer, shape: Shape) -> Ciphertexts:
        """Notes the number of products."""
        self.products.append((layer.products(shape), x))
        return replace(x, count=flat_size(layer.output_shape(shape)))

    def add_constant(self, x: Ciphertexts, turns: FloatArray) -> Ciphertexts:
        """Costs next to nothing."""
        return x

    def add(self, a: Ciphertexts, b: Ciphertexts) -> Ciphertexts:
        """Costs next to nothing."""
        return Ciphertexts(
            count=a.count,
            under_input_key=a.under_input_key or b.under_input_key,
            under_big_key=a.under_big_key or b.under_big_key,
        )

    def subtract(self, a: Ciphertexts, b: Ciphertexts) -> Ciphertexts:
        """Costs next to nothing."""
        return self.add(a, b)

    def select(self, x: Ciphertexts, index: IntArray) -> Ciphertexts:
        """Costs next to nothing."""
        return replace(x, count=len(index))

    def join(self, parts: Sequence[Ciphertexts]) -> Ciphertexts:
        """Costs next to nothing."""
        return Ciphertexts(
            count=sum(part.count for part in parts),
            under_input_key=any(part.under_input_key for part in parts),
            under_big_key=any(part.under_big_key for part in parts),
        )

    def lookup(
        self,
        x: Ciphertexts,
        tables: FloatArray,
        table_index: NDArray[np.int32],
        second: NDArray[np.int32] | None = None,
    ) -> Ciphertexts:
        """Notes the call."""
        self.lookups.append(x)
        results = x.count if second is None else 2 * x.count
        return Ciphertexts(count=results, under_input_key=False, under_big_key=True)


def work(program: Program) -> list[LayerWork]:
    """The work of every layer for one image, in order."""
    circuit, layers = WorkCircuit(), []
    pixels = Ciphertexts(count=flat_size(program.input.shape), under_input_key=True, under_big_key=False)
    for stage, _ in program.walk(circuit, pixels, 2):
        layers.append(
            LayerWork(layer=stage.layer.name, products=tuple(circuit.products), lookups=tuple(circuit.lookups))
        )
        circuit.products.clear()
        circuit.lookups.clear()
    last = replace(layers[-1], packed=program.answer_values)
    if not program.lookups:
        last = replace(last, products=(), multiplied=pixels.count)
    return [*layers[:-1], last]


def layer_seconds(layer: LayerWork, params: ParameterSet, times: PrimitiveTimes) -> float:
    """Predicted seconds of one layer for one image."""
    seconds = 0.0
    for products, x in layer.products:
        seconds += products * (x.dimension(params) + 1) * times.linear_word
    for x in layer.lookups:
        rounds = math.ceil(x.count / times.lanes) / times.threads
        switch = x.under_input_key * times.input_key_switch + x.under_big_key * times.big_key_switch
        seconds += max(rounds, 1) * times.bootstrap + x.count * switch
    if layer.packed:
        ring = params.answer_ring
        switches = packing.key_switches(layer.packed, ring) - (layer.packed if layer.multiplied else 0)
        # A product has one transform and two multiplications, a key switch has four of each: counted as one half.
        products = layer.packed * math.ceil(layer.multiplied / ring.ring_degree)
        seconds += (switches + products / 2) * times.packing_key_switch
    return seconds


def seconds(layers: list[LayerWork], params: ParameterSet, times: PrimitiveTimes) -> float:
    """Predicted seconds of the server for one image."""
    return sum(layer_seconds(layer, params, times) for layer in layers)


def predict(program: Program, params: ParameterSet, times: PrimitiveTimes) -> float:
    """Predicted seconds of the server for one image of a Program."""
    return seconds(work(program), params, times)
