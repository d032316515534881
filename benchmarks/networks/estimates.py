"""Past this machine: what would ImageNet's networks and SHE's recurrent net cost here? Counts of operations, priced by the cost model.

Counted from the operations of models.compiler.simplify, without weights: integer matrices for 224 x 224 images would take gigabytes
for nothing, since every weight counts (he_layers.analysis.cost counts only those that are not 0).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import nn

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.networks.imagenet import NETWORKS, SIDE
from ciphershift.he_layers.crypto import params, timing
from ciphershift.he_layers.crypto.ciphertexts import CkksCiphertext
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.timing import PrimitiveTimes
from ciphershift.he_layers.layers import Shape
from ciphershift.models import cost_report as check
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.simplify import simplify
from ciphershift.models.compiler.trace import read

LSTM_UNITS, LSTM_STEPS, LSTM_INPUTS, LSTM_WORDS = 300, 25, 300, 10_000
LOOKUPS_PER_PRODUCT = 2
"""a * b = ((a + b)^2 - (a - b)^2) / 4: two tables."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Operations for one input.

    Attributes:
        lookups: a key switch and a bootstrap each; ``first_lookups`` of them on sums of fresh ciphertexts.
        products: weights over all places; ``first_products`` of them on fresh ciphertexts.
        values: of the input.
        largest: values of the widest feature map.
    """

    lookups: int
    first_lookups: int
    products: int
    first_products: int
    values: int
    largest: int

    def seconds(self, parameter_set: ParameterSet, times: PrimitiveTimes) -> float:
        """Predicted, of the server."""
        fresh, big = parameter_set.input_ring.ring_degree, parameter_set.big_dimension
        words = self.first_products * (fresh + 1) + (self.products - self.first_products) * (big + 1)
        each = times.bootstrap / (times.lanes * times.threads)
        switches = (
            self.first_lookups * times.input_key_switch + (self.lookups - self.first_lookups) * times.big_key_switch
        )
        return words * times.linear_word + self.lookups * each + switches


def of_module(module: nn.Module, shape: Shape) -> Work:
    """Of a module that models.cost_report accepts, for images of this shape (C, H, W)."""
    operations = simplify(read(module, shape), shape).operations
    lookups = check.lookups(operations, shape)
    products = [_products(operation) for operation in operations]
    first = next(count for count in lookups if count)
    return Work(
        lookups=sum(lookups),
        first_lookups=first,
        products=sum(products),
        first_products=products[0],
        values=prod(shape),
        largest=max(prod(operation.shape) for operation in operations),
    )


def recurrent() -> Work:
    """SHE's LSTM on Penn Treebank: ReLU for every gate, three products of encrypted values for each unit and step."""
    gates, units = 4 * LSTM_UNITS, LSTM_UNITS
    lookups = gates + units + 3 * units * LOOKUPS_PER_PRODUCT
    products = gates * (LSTM_INPUTS + units)
    return Work(
        lookups=LSTM_STEPS * lookups,
        first_lookups=LSTM_STEPS * gates,
        products=LSTM_STEPS * products + LSTM_WORDS * units,
        first_products=LSTM_STEPS * gates * LSTM_INPUTS,
        values=LSTM_STEPS * LSTM_INPUTS,
        largest=LSTM_WORDS,
    )


def _products(operation: ir.Operation) -> int:
    match operation:
        case ir.Conv2d():
            return prod(operation.shape) * operation.weight[0].numel()
        case ir.Linear():
            return operation.weight.numel()
        case ir.AvgPool2d():
            return prod(operation.shape) * prod(operation.kernel)
    return 0


def predict_networks(name: str, *, threads: int) -> Iterator[dict[str, Any]]:
    """Yields one object per network: operations, predicted seconds, bytes."""
    parameter_set = params.get(name)
    timing.forget()  # the machine may have changed its speed since
    times = timing.measure(parameter_set, threads)
    for title in (*NETWORKS, "recurrent"):
        work = recurrent() if title == "recurrent" else of_module(NETWORKS[title](), (3, SIDE, SIDE))
        yield envelope("estimates", threads=threads, params=parameter_set) | {
            "network": title,
            "lookups": work.lookups,
            "products": work.products,
            "predicted_s": round(work.seconds(parameter_set, times), 1),
            "lookup_s": round(times.bootstrap / (times.lanes * threads) + times.big_key_switch, 6),
            "upload_bytes": CkksCiphertext.nbytes(parameter_set, work.values),
            "largest_map_bytes": work.largest * 4 * (parameter_set.big_dimension + 1),
        }
