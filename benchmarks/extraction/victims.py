"""What is attacked: a network, its inputs, and each kind of answer that an owner may choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.networks.agreement import read_card
from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto.params import DEFAULT, ParameterSet
from ciphershift.he_layers.layers import Linear, ReLU
from ciphershift.he_layers.layers.layer import FloatArray
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program
from ciphershift.models.compiler import answers
from ciphershift.models.compiler.scales import LOGIT_PEAK
from ciphershift.models.training import sets
from ciphershift.models.training.behind import behind
from ciphershift.models.training.data import Split
from ciphershift.server.settings import Settings

COARSE_LEVELS = 15
SPREAD = 40.0  # standard deviation of a depth-2 network's inputs, in steps of a byte, around the middle
RAMP = 0.25  # turns of a depth-2 network's activations
TEST_INPUTS = 5000


@dataclass(frozen=True, kw_only=True, slots=True)
class Victim:
    """A network and the inputs that an attacker and its users have.

    Attributes:
        program: the network, without its public part: that, an attacker has.
        digest: of the whole network.
        queries: uint8 [n, ...] as ``program`` takes them, the attacker's inputs in the order in which they are asked.
        test: uint8 [n, ...], the users' inputs.
        labels: of `queries`, public ones; none if there are none.
        center, spread: inputs are read as (pixel / 255 - center) / spread.
    """

    program: Program
    digest: str
    queries: NDArray[np.uint8]
    test: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    center: float
    spread: float

    def read(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The inputs as an attacker's network takes them."""
        return ((images / 255 - self.center) / self.spread).astype(np.float32)


KINDS: Mapping[str, Callable[[Program], Program]] = {
    "logits": lambda program: program,
    "coarse": lambda program: answers.quantized(program, COARSE_LEVELS),
    "class": answers.top_one,
}
"""What the owner may answer with: all logits, logits of COARSE_LEVELS steps, the predicted class alone."""


def ask(program: Program, kind: str, parameter_set: ParameterSet, images: NDArray[np.uint8], seed: int) -> FloatArray:
    """Returns the answers [n, classes] that a client would decrypt: with the circuit's noise, rounding and flooding."""
    return simulate.run(KINDS[kind](program), parameter_set, images, np.random.default_rng(seed))


def of_zoo(name: str, queries: int) -> Victim:
    """A network of the zoo, attacked with the samples that it was trained with and measured on all test samples."""
    folder = Settings().models / name
    program, splits = Program.load(folder), sets.of_card(read_card(folder))
    parts = [part for part in (splits.train, splits.validation) if part is not None]
    known = Split(
        images=np.concatenate([part.images for part in parts])[:queries],
        labels=np.concatenate([part.labels for part in parts])[:queries],
    )
    test = splits.test
    if program.stem is not None:
        known, test = behind(program.stem, known), behind(program.stem, test)
    return Victim(
        program=program.behind_stem,
        digest=program.digest,
        queries=known.images,
        test=test.images,
        labels=known.labels.astype(np.int64),
        center=0.0,
        spread=1.0,
    )


def depth_two(inputs: int, units: int, classes: int, queries: int, seed: int) -> Victim:
    """A random network of one hidden layer of ReLUs with biases, attacked and measured with Gaussian inputs.

    Args:
        inputs: length of the input vector.
        units: hidden units; weights are 0 or ±2^e, biases as large as the sums' deviation, activations have 31 levels.
        classes: outputs.
        queries: of the attacker.
        seed: of weights and inputs.
    """
    rng = np.random.default_rng(seed)
    images = np.clip(np.rint(127.5 + SPREAD * rng.standard_normal((queries + TEST_INPUTS, inputs))), 0, 255).astype(
        np.uint8
    )
    powers = np.array([-4, -2, -1, 0, 1, 2, 4], dtype=np.int8)
    first, second = rng.choice(powers, (units, inputs)), rng.choice(powers, (classes, units))
    read = InputSpec(shape=(inputs,), levels=63, delta=1e-4)
    sums = read.integers(images[:TEST_INPUTS]) @ first.T.astype(np.int64)
    deviation = float(sums.std(axis=0).mean())
    bias = -sums.mean(axis=0) + deviation * rng.uniform(-1, 1, units)
    delta = 0.06 / deviation
    hidden = ReLU(
        name="relu",
        bias=np.rint(bias).astype(np.int32),
        multiplier=np.full(units, 31 * delta / RAMP),
        levels=31,
        delta_out=1e-4,
    )
    peak = np.abs(hidden.plain(sums) @ second.T.astype(np.int64)).max()
    program = Program(
        name="depth-2",
        version="1",
        params=DEFAULT,
        input=InputSpec(shape=(inputs,), levels=read.levels, delta=delta),
        layers=(
            Linear(name="first", weight=first),
            ReLU(
                name="relu",
                bias=hidden.bias,
                multiplier=hidden.multiplier,
                levels=31,
                delta_out=LOGIT_PEAK / (1.1 * float(peak)),
            ),
            Linear(name="second", weight=second),
        ),
        output=OutputSpec(classes=tuple(str(i) for i in range(classes)), scale=1.0),
    )
    return Victim(
        program=program,
        digest=program.digest,
        queries=images[:queries],
        test=images[queries:],
        labels=None,
        center=0.5,
        spread=SPREAD / 255,
    )
