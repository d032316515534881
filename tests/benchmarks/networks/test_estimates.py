"""Counting work without weights gives what the Program of the same module has."""

import pytest
from torch import nn

from ciphershift.benchmarks.networks import estimates, first_stage, growth
from ciphershift.he_layers.analysis import cost
from ciphershift.models import cost_report as check
from ciphershift.models.compiler.simplify import simplify
from ciphershift.models.compiler.trace import read


def test_counts_are_those_of_the_program() -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, 1, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(4, 4, 3, 1, 0),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 2 * 2, 5),
    )
    work = estimates.of_module(module, (1, 8, 8))
    program = check.stand_in(simplify(read(module, (1, 8, 8)), (1, 8, 8)), (1, 8, 8), "TOY_N128")
    assert work.values == 64
    assert work.largest == 4 * 8 * 8
    products = sum(count for layer in cost.work(program) for count, _ in layer.products)
    assert products <= work.products < 3 * products  # zeros and borders are counted, too
    # A padded window has fewer values to compare: the Program leaves those comparisons out.
    assert program.lookups <= work.lookups < 1.2 * program.lookups


def test_the_growing_network_has_the_lookups_that_the_axis_says() -> None:
    assert [growth.network(maps, "TOY_N128").lookups for maps in (1, 2, 8)] == [169, 338, 1352]


@pytest.mark.parametrize("maps", [1, 3])
def test_the_first_stage_is_that_of_full_size(maps: int) -> None:
    program = first_stage.stage(maps, "TOY_N128")
    assert program.input.shape == (3, 224, 224)
    assert program.stages[0].output_shape == (maps, 55, 55)
    assert program.lookups == maps * (55 * 27 * 2 + 27 * 27 * (2 + 1))
