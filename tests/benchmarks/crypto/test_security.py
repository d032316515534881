"""The weights that the noise of a logit comes through."""

import numpy as np
import pytest

from ciphershift.benchmarks.crypto.security import last_norm
from ciphershift.he_layers.layers import Linear
from ciphershift.he_layers.program import Program
from ciphershift.models.compiler import answers


def test_the_norm_of_a_logit_is_over_all_views(tiny_program: Program) -> None:
    last = tiny_program.layers[-1]
    assert isinstance(last, Linear)
    rows = (last.weight.astype(np.float64) ** 2).sum(axis=1)
    assert last_norm(tiny_program) == pytest.approx(rows.max() ** 0.5)
    assert last_norm(answers.mirrored(tiny_program)) == pytest.approx((2 * rows.max()) ** 0.5)
    assert last_norm(answers.top_one(tiny_program)) is None
