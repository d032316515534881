"""Programs that answer otherwise: with the mean over two views, with coarse logits, with the class alone, or the same by wider windows.

Coarse logits and the class alone give away less, for owners who want to make a network harder to copy by queries (docs/security.md). They
end in look-ups, which read the logits with noise: near ties are decided by it. All only for the fast profile: there scales are free, in the
exact one they are not.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import OutOfLevelsError, ProgramError
from ciphershift.he_layers.layers import Add, Gather, Layer, Linear, ReLU, Table, TopOne
from ciphershift.he_layers.layers.layer import flat_size
from ciphershift.he_layers.program import IMAGE, OutputSpec, Program
from ciphershift.he_layers.recurrence import certificates, weights_of
from ciphershift.he_layers.stem import Stem
from ciphershift.models.compiler.mirror import mirrored_channels
from ciphershift.models.compiler.scales import LOGIT_PEAK

VIEWS = 2
"""Of an image: itself and its mirror image."""
TOP_ONE_PEAK = 0.24
"""Any two logits then differ by less than half a turn."""
QUANTIZED_PEAK = 0.145
"""The ramp over all logits then has 0.29 turns."""


def mirrored(program: Program) -> Program:
    """The same network, answering with the mean of its logits for an image and for the mirror image: two views of one encryption.

    The mirror image is the same ciphertexts in another order, so nothing more is uploaded; everything behind is computed twice. The sum of
    both logits has the space that one had, so each has half the amplitude: what the last look-ups and packing add counts more (by sqrt 2
    and by 2 in logits), and the noise that earlier layers make, which differs between the views, less (by sqrt 2).

    Behind a public part these are its maps, and each map of a mirrored image must be another's mirror image (models.nn.whitening).

    Raises:
        ProgramError: the program is of the exact profile, does not end in logits, answers with a map, has logits that are sums of what
            other look-ups read, too, or takes something else than images; or its public part has maps
            without a mirror image, or maps that mirror each other have different ranges.
        ConfigurationError: the extra ``stem`` is not installed.
    """
    if len(program.sample_shape) != 3 or len(program.input.shape) != 3:
        raise ProgramError(
            f"{program.name!r} takes {program.sample_shape} and encrypts {program.input.shape}; only images have a second view"
        )
    if any(len(part.shape) == 3 and part.shape[-1] > 1 for part in program.output.parts or ()):
        raise ProgramError(
            f"{program.name!r} has outputs of the shapes {[part.shape for part in program.output.parts or ()]}: a map is mirrored with its "
            "image; only vectors, such as logits, have a mean over two views"
        )
    channels = (
        np.arange(program.input.shape[0]) if program.stem is None else _mirrored_channels(program.name, program.stem)
    )
    one = _with_peak(program, LOGIT_PEAK / VIEWS)
    places = np.arange(flat_size(program.input.shape), dtype=np.int32).reshape(program.input.shape)
    mirror = Gather(
        name="mirror",
        shape=program.input.shape,
        index=places[channels][..., ::-1].reshape(-1).copy(),
        inputs=(IMAGE,),
    )
    names = {IMAGE: mirror.name} | {stage.layer.name: f"{stage.layer.name}_mirrored" for stage in one.stages}
    other = [
        replace(
            stage.layer,
            name=names[stage.layer.name],
            inputs=tuple(names[source] for source in stage.sources),
            shares=(stage.layer.shares or stage.layer.name) if stage.layer.arrays() else None,
        )
        for stage in one.stages
    ]
    ends = (one.layers[-1].name, other[-1].name)
    return replace(
        one,
        name=f"{program.name}-mirrored",
        layers=(*one.layers, mirror, *other, Add(name="views", terms=VIEWS, inputs=ends)),
        output=replace(program.output, scale=program.output.scale / VIEWS),
    )


def _mirrored_channels(name: str, stem: Stem) -> NDArray[np.int64]:
    """For each map of a public part the one that holds its mirror image if the image is mirrored. Raises ProgramError."""
    mirror = mirrored_channels(stem)
    if mirror is None:
        raise ProgramError(
            f"the public part of {name!r} gives other maps for a mirrored image, or maps that do not vary; take filters that are their own "
            "mirror images, or minus them and of both signs, as models.nn.whitening does"
        )
    for ends in (stem.low, stem.high):
        if len(ends) > 1 and not np.array_equal(np.array(ends)[mirror], ends):
            raise ProgramError(
                f"maps of {name!r} that are mirror images have different ranges: convert the module again"
            )
    return mirror


def top_one(program: Program) -> Program:
    """The same network, answering 1 for the greatest logit and 0 for every other.

    Raises:
        ProgramError: the program is of the exact profile, does not end in logits, has several outputs, or a single number, or logits
            that are sums of what other look-ups read, too.
    """
    _require_logits(program)
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
        ProgramError: as of ``top_one``.
    """
    _require_logits(program)
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


def widened(program: Program, factor: float) -> Program:
    """The same network with windows of look-ups and logits that are ``factor`` times as wide: all values take so much less of a turn.

    A sum that leaves its window wraps, where the plaintext network clips; inputs can be made for that (``ciphershift bench crafted``).
    The circuit's noise stays what it is, so in units of the values it is ``factor`` times as great.

    Raises:
        OutOfLevelsError: the factor is below 1.
        ProgramError: the program is of the exact profile, whose sums are counted modulo in the plaintext network, too.
    """
    if factor < 1:
        raise OutOfLevelsError(f"windows = {factor}; it takes a factor of at least 1")
    if program.profile != "fast":
        raise ProgramError(
            f"{program.name!r} is of the {program.profile} profile: its sums wrap in both networks, so nothing differs"
        )
    layers = [
        replace(layer, delta_out=layer.delta_out / factor) if isinstance(layer, Table) else layer
        for layer in program.layers
    ]
    wide = replace(
        program,
        name=f"{program.name}-wide",
        input=replace(program.input, delta=program.input.delta / factor),
        layers=tuple(layers),
        recurrent=(),
    )
    return replace(wide, recurrent=certificates(wide, weights_of(program.recurrent))) if program.recurrent else wide


def _require_logits(program: Program) -> None:
    if program.output.parts:
        raise ProgramError(
            f"{program.name!r} has several outputs, or one that is no vector; only logits have a greatest"
        )
    if len(program.output.classes) == 1:
        raise ProgramError(
            f"{program.name!r} answers with one number, which is compared with no other: serve it as it is"
        )


def _with_peak(program: Program, peak: float) -> Program:
    """The program with its logits at ``peak`` instead of LOGIT_PEAK turns: the activations that they are sums of are scaled."""
    if not program.lookups:
        raise ProgramError(
            f"{program.name!r} has no look-up, and other answers need some: put nn.ReLU before its last layer"
        )
    if program.profile != "fast" or not isinstance(program.layers[-1], Linear):
        raise ProgramError(
            f"{program.name!r} is of the {program.profile} profile and ends in {program.layers[-1].kind}; "
            "answers can be changed in the fast profile, on a network that ends in logits"
        )
    linear, last = _behind_last_tables(program)
    readers = {
        stage.layer.name
        for stage in program.stages
        if not last.isdisjoint(stage.sources) or not linear.isdisjoint(stage.sources)
    }
    if (others := sorted(readers - linear)) or (IMAGE in last and len(last) > 1):
        what = f"values that {others[0]} reads, too" if others else "the input and of look-ups"
        raise ProgramError(
            f"the logits of {program.name!r} are sums of {what}, and can have no amplitude of their own: serve it as it is, or give its "
            "last layer activations that nothing else reads"
        )
    factor = peak / LOGIT_PEAK
    if IMAGE in last:
        return replace(program, input=replace(program.input, delta=program.input.delta * factor))
    layers: list[Layer] = [
        replace(layer, delta_out=layer.delta_out * factor) if isinstance(layer, Table) and layer.name in last else layer
        for layer in program.layers
    ]
    return replace(program, layers=tuple(layers))


def _behind_last_tables(program: Program) -> tuple[set[str], set[str]]:
    """Layers between the last tables and the logits, these among them; and the tables, or IMAGE where a value of it comes there."""
    stages = {stage.layer.name: stage for stage in program.stages}
    linear, last, waiting = set(), set(), [program.layers[-1].name]
    while waiting:
        name = waiting.pop()
        if name == IMAGE or isinstance(stages[name].layer, Table):
            last.add(name)
        elif name not in linear:
            linear.add(name)
            waiting += stages[name].sources
    return linear, last
