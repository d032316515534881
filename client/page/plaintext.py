"""The same network in the clear, where this machine has it: the one place of the client that knows networks.

A server keeps its networks to itself. Whoever serves from this machine, or uses the shipped zoo, has the files all the same; the digest
that every answer is bound to tells whether they are those that the server uses.
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


def logits(folder: Path, profile: ModelProfile, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Returns the logits [classes] of a picture, uint8 [C, H, W], without any encryption.

    Raises:
        UnknownModelError: the model's own Program is not in `folder`.
    """
    try:
        program = Program.load(folder / profile.model)
        is_here = program.digest == profile.program_digest
    except ProgramError:
        is_here = False
    if not is_here:
        raise UnknownModelError(
            f"the network belongs to the server, which hands out answers only; {folder} holds no copy of {profile.model} "
            f"with the digest {profile.program_digest[:12]}…: if you have one elsewhere, start the page with --models FOLDER"
        )
    values: NDArray[np.float64] = simulate.plain(program, picture[None])[0] * program.output.scale
    return values
