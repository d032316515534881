"""Programs that give away less: coarse logits, or the predicted class alone, decided under encryption.

For owners who want to make a network harder to copy by queries (docs/security.md). Both end in look-ups, which read the logits with
noise: near ties are decided by it. Only for the fast profile: there the scale of the logits is free, in the exact one it is not.
"""

from dataclasses import replace

import numpy as np

from ciphershift.errors import OutOfLevelsError, ProgramError
from ciphershift.he_layers.layers import Layer, Linear, ReLU, Table, TopOne
from ciphershift.he_layers.program import OutputSpec, Program
from ciphershift.models.compiler.scales import LOGIT_PEAK

TOP_ONE_PEAK = 0.24
"""Any two logits then differ by less than half a turn."""
QUANTIZED_PEAK = 0.145
"""The ramp over all logits then has 0.29 turns."""


def top_one(program: Program) -> Program:
    """The same network, answering 1 for the greatest logit and 0 for every other.

    Raises:
        ProgramError: the program is of the exact profile, or does not end in logits.
    """
    scaled = _with_peak(program, TOP_ONE_PEAK)
    return replace(
        scaled,
        name=f"{program.name}-top-one",
        layers=(*scaled.layers, TopOne(name="top_one")),
        output=OutputSpec(classes=program.output.classes, scale=1.0),
    )


def quantized(program: Program, levels: int) -> Program:
    """The same network, answering each logit as an integer from 0 (least) to ``levels``.

    Raises:
        OutOfLevelsError: fewer than 1 or more than 255 levels.
        ProgramError: the program is of the exact profile, or does not end in logits.
    """
    if not 1 <= levels <= 255:
        raise OutOfLevelsError(f"levels = {levels}; it takes 1 to 255")
    scaled = _with_peak(program, QUANTIZED_PEAK)
    classes, peak = len(program.output.classes), QUANTIZED_PEAK / scaled.logit_delta
    ramp = ReLU(
        name="coarse",
        bias=np.full(classes, round(peak), dtype=np.int32),
        multiplier=np.full(classes, levels / (2 * peak)),
        levels=levels,
        delta_out=LOGIT_PEAK / levels,
    )
    return replace(
        scaled,
        name=f"{program.name}-coarse",
        layers=(*scaled.layers, ramp),
        output=OutputSpec(classes=program.output.classes, scale=2 * peak / levels * program.output.scale),
    )


def _with_peak(program: Program, peak: float) -> Program:
    """The program with its logits at ``peak`` instead of LOGIT_PEAK turns: the last activation's amplitude is scaled."""
    if program.profile != "fast" or not isinstance(program.layers[-1], Linear):
        raise ProgramError(
            f"{program.name!r} is of the {program.profile} profile and ends in {program.layers[-1].kind}; "
            "answers can be changed in the fast profile, on a network that ends in logits"
        )
    last = max((index for index, layer in enumerate(program.layers) if isinstance(layer, Table)), default=None)
    factor = peak / LOGIT_PEAK
    if last is None:
        return replace(program, input=replace(program.input, delta=program.input.delta * factor))
    layers: list[Layer] = list(program.layers)
    table = layers[last]
    assert isinstance(table, Table)
    layers[last] = replace(table, delta_out=table.delta_out * factor)
    return replace(program, layers=tuple(layers))
