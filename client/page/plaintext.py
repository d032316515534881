"""Evaluates a local copy of the network in the clear, for comparison: the only place where the client knows networks.

Servers do not publish their networks. The shipped zoo, and a server on this machine, have the files here; the digest that every answer
is bound to tells whether they are the ones that the server uses.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError, ProgramError, UnknownModelError
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import Program

ZOO = Path(__file__).resolve().parents[2] / "models" / "zoo"


def logits(folder: Path, model: str, digest: str, values: bytes) -> NDArray[np.float64]:
    """Returns the logits [classes] of an input without encryption.

    Args:
        folder: holds a sub-folder for each network.
        model: name of the network.
        digest: of the version that the server uses.
        values: uint8 in the order of the network's input shape.

    Raises:
        UnknownModelError: `folder` does not hold this version of the model.
        BadShapeError: the model takes another number of values.
    """
    program = _program(folder, model)
    if program is None or program.digest != digest:
        raise UnknownModelError(
            f"servers do not publish their networks, and {folder} holds no copy of {model} "
            f"with the digest {digest[:12]}…: if you have one elsewhere, start the page with --models FOLDER"
        )
    shape = program.sample_shape
    if len(values) != math.prod(shape):
        raise BadShapeError(f"the input has {len(values)} values, {model} takes {shape}")
    image = np.frombuffer(values, dtype=np.uint8).reshape(1, *shape)
    found: NDArray[np.float64] = simulate.plain(program, image)[0] * program.output.scales
    return found


def _program(folder: Path, model: str) -> Program | None:
    if model not in {path.parent.name for path in folder.glob("*/program.json")}:  # a name is not a path
        return None
    try:
        return Program.load(folder / model)
    except ProgramError:
        return None
