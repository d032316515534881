"""Evaluates a local copy of the network in the clear, for comparison: the only place where the client knows networks.

Servers do not publish their networks. The shipped zoo, and a server on this machine, have the files here; the digest that every answer
is bound to tells whether they are the ones that the server uses.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ciphershift.client._wire import ModelProfile
from ciphershift.errors import ProgramError, UnknownModelError
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import Program

ZOO = Path(__file__).resolve().parents[2] / "models" / "zoo"


def logits(folder: Path, profile: ModelProfile, image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Returns the logits [classes] of an image, uint8 [C, H, W], without encryption.

    Raises:
        UnknownModelError: `folder` does not hold the server's version of the model.
    """
    try:
        program = Program.load(folder / profile.model)
        is_here = program.digest == profile.program_digest
    except ProgramError:
        is_here = False
    if not is_here:
        raise UnknownModelError(
            f"servers do not publish their networks, and {folder} holds no copy of {profile.model} "
            f"with the digest {profile.program_digest[:12]}…: if you have one elsewhere, start the page with --models FOLDER"
        )
    values: NDArray[np.float64] = simulate.plain(program, image[None])[0] * program.output.scale
    return values
