"""Random graphs of supported operations: the module, the converted network before rounding, and its Program in the clear."""

import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from ciphershift.errors import BadCalibrationError, UnsupportedLayerError
from ciphershift.he_layers import simulate
from ciphershift.models.compiler.convert import before_rounding
from ciphershift.models.compiler.export import export
from tests.support.random_graphs import ACTIVATIONS, STEPS, Random

BOUND = 0.15
"""Mean difference beside the deviation of the logits: clipped ends of ramps, which add up over the steps."""
SHAPES = ((2, 8, 8), (2, 12))
GRAPHS = given(
    shape=st.sampled_from(SHAPES),
    steps=st.lists(
        st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, len(ACTIVATIONS) - 1)), min_size=1, max_size=4
    ),
    seed=st.integers(0, 2**16),
)


def agrees(shape: tuple[int, ...], steps: list[tuple[str, int]], seed: int) -> None:
    """`convert` holds every step against the module's, up to a thousandth; this holds the whole of it, and what is exported."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, *shape), dtype=np.uint8)
    samples = torch.tensor(pixels).float() / 255
    module = Random(shape, steps, seed).eval()
    try:
        network = before_rounding(module, samples, levels=255, max_outside=1e-3).network
    except (UnsupportedLayerError, BadCalibrationError):  # a finding, as of a function that is nearly constant
        reject()
    with torch.no_grad():
        expected, found = module(samples).numpy(), network(samples).numpy()
        assert np.abs(found - expected).mean() < BOUND * expected.std() + 1e-5
        network.quantize(True)
        rounded = network(samples).numpy()
    program = export(network, name="p", version="1", params="FAST_N512", classes=("a", "b", "c"))
    plain = simulate.plain(program, pixels) * program.output.scale
    # Biases become integers, tables have 256 steps: some activations move by a level of 255.
    assert np.abs(plain - rounded).mean() < BOUND * rounded.std() + 1e-5


FEW = settings(max_examples=4, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@GRAPHS
@FEW
def test_a_few_random_graphs(shape: tuple[int, ...], steps: list[tuple[str, int]], seed: int) -> None:
    agrees(shape, steps, seed)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@GRAPHS
@settings(FEW, max_examples=int(os.environ.get("CIPHERSHIFT_GRAPHS", "60")))
def test_many_random_graphs(shape: tuple[int, ...], steps: list[tuple[str, int]], seed: int) -> None:
    agrees(shape, steps, seed)
