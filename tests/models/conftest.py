"""For tests of conversion and training: random weights that do not depend on which tests ran before."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws of torch's generator is the same every time."""
    torch.manual_seed(0)
