"""Common architectures: the table in the documentation is what conversion says, and what is converted computes what the module computes."""

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from ciphershift.errors import UnsupportedLayerError
from ciphershift.models.compiler.convert import before_rounding
from ciphershift.protocol.outputs import OUTPUTS, slices
from tests.support.architectures import ALL, PAGE, Architecture, samples, settled, written


def test_the_table_in_the_documentation_is_what_conversion_says() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "run python -m tests.support.architectures and commit docs/architectures.md"
    assert len(ALL) >= 30


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ALL, ids=lambda architecture: architecture.name)
def test_what_is_converted_is_the_module(architecture: Architecture) -> None:
    """`convert` holds every step against the module's before rounding; ends of ramps, which clip few values, are all that may differ."""
    module = settled(architecture)
    data = samples(architecture, 80)
    rows = PAGE.read_text(encoding="utf-8").splitlines()
    (row,) = (row for row in rows if row.startswith(f"| {architecture.name} |"))
    if "| converted, " not in row:
        with pytest.raises(UnsupportedLayerError):
            before_rounding(module, data)
        return
    network = before_rounding(module, data, levels=255, max_outside=2e-3).network
    with torch.no_grad():
        expected = torch.cat([v.flatten(1) for v in pytree.tree_leaves(module(data))], dim=1).double().numpy()
        found = network(data).double().numpy()
    for part, place in slices(network.parts):
        mine, given = found[:, place], expected[:, place]
        mine = OUTPUTS[part.function](mine) if part.function else mine
        assert np.abs(mine - given).mean() < 0.15 * given.std() + 1e-5, part.name
