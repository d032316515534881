"""Program: a network as integers, torus scales and layers; what is exported, shipped, simulated and evaluated.

A Program is two files in a folder: ``program.json`` (names, shapes, scales) and ``weights.safetensors`` (arrays named "<layer>.<field>"),
and ``stem.onnx`` if it begins with a public part.
Everything is checked when a Program is made, so that the rest of the code may trust it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ciphershift.errors import BadShapeError, OutOfLevelsError, ProgramError, UnsupportedLayerError
from ciphershift.he_layers.layers import KINDS, Circuit, Dense, Flatten, Layer, Scale, Shape
from ciphershift.he_layers.layers.layer import IMAGE as IMAGE
from ciphershift.he_layers.layers.layer import IntArray, T
from ciphershift.he_layers.recurrence import Certificate, require
from ciphershift.he_layers.stem import FILE as STEM_FILE
from ciphershift.he_layers.stem import Stem
from ciphershift.protocol import scaling
from ciphershift.protocol.encoding import Encoding
from ciphershift.protocol.outputs import OUTPUTS, Part
from ciphershift.protocol.sequences import padded

FORMAT = 1
PROFILES = ("fast", "exact")
DELTA_TOLERANCE = 1e-9
MOST_REACH = 0.49
"""Turns that the sums of a network without look-ups may reach: half a turn is the end of the torus, the rest is 40 deviations of noise."""
V = TypeVar("V")
"""One value for each layer: integers in ``simulate.plain``, a circuit's batch in ``walk``."""
PROGRAM_FILE, WEIGHTS_FILE = "program.json", "weights.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSpec:
    """Images (C, H, W), series (C, L) or vectors (features,): integers, ``delta`` turns for one of them.

    Without an ``encoding`` these are pixels, 0 to ``levels`` for 0 to 1; with one, each feature has its own range of ``levels`` steps.
    With ``sequences`` a sample may be a sequence of 1 to L steps of C - 1 features, which the client pads (protocol.sequences).
    """

    shape: Shape
    levels: int
    delta: float
    encoding: Encoding | None = None
    sequences: bool = False

    def __post_init__(self) -> None:
        """Checks the values. Raises ProgramError or OutOfLevelsError."""
        if not 1 <= len(self.shape) <= 3 or min(self.shape) < 1:
            raise ProgramError(
                f"input shape {self.shape} is not (C, H, W), (C, L) or (features,) with sides of at least 1"
            )
        if not 1 <= self.levels <= 255:
            raise OutOfLevelsError(f"input levels = {self.levels}; at least 1, at most 255")
        if not 0 < self.delta * self.levels < 0.5:
            raise ProgramError(
                f"input spans {self.delta * self.levels} turns, more than 0 and less than 0.5; change its delta"
            )
        if self.encoding is not None and len(self.encoding.origin) != self.shape[0]:
            raise ProgramError(
                f"input of shape {self.shape} has an encoding of {len(self.encoding.origin)} features; give one for each of the first axis"
            )
        if not isinstance(self.sequences, bool):
            raise ProgramError(f"input says sequences = {self.sequences!r}; it is true or false")
        if self.sequences:
            self._require_padding()

    def _require_padding(self) -> None:
        """Checks that short sequences can be padded. Raises ProgramError."""
        if len(self.shape) != 2 or self.shape[0] < 2:
            raise ProgramError(
                f"input of shape {self.shape} takes no sequences; these are (features and a presence, steps)"
            )
        if self.encoding is not None:
            try:
                self.encoding.integers(padded([np.zeros((self.shape[0] - 1, 1))], self.shape[1]), self.levels)
            except OutOfLevelsError as error:
                raise ProgramError(
                    f"the encoding has no place for the zeros or the presence of a padding: {error}"
                ) from error

    @property
    def bounds(self) -> tuple[IntArray, IntArray]:
        """Least and greatest integer of each value, both [values]."""
        lowest = np.zeros(self.shape[0], np.int64) if self.encoding is None else np.array(self.encoding.lowest)
        low = np.repeat(lowest.astype(np.int64), prod(self.shape[1:]))
        return low, low + self.levels

    def integers(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Bytes [batch, C, H, W] as integers: pixels 0 to 255, or with an encoding steps above each feature's least value.

        Raises:
            BadShapeError: anything but uint8 of this shape.
            OutOfLevelsError: a feature has more steps than levels.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            raise BadShapeError(
                f"images are {images.dtype} {images.shape}; the program takes uint8 [batch, {self.shape}]"
            )
        if self.encoding is None:
            return scaling.to_integers(images / scaling.PIXEL_MAX, self.levels).astype(np.int64)
        if images.size and images.max() > self.levels:
            raise OutOfLevelsError(f"a feature lies {images.max()} steps above its least value, at most {self.levels}")
        lowest = np.array(self.encoding.lowest, dtype=np.int64).reshape(-1, *[1] * (len(self.shape) - 1))
        return images.astype(np.int64) + lowest


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputSpec:
    """Names of the values in order, and the logit that one integer unit of the last layer stands for.

    ``function``: what the module does to its logits at its end (protocol.outputs), which the client does after decryption. ``parts``: the
    outputs, if there are several, or one that is no vector; each has a function of its own, and ``scale`` times its factor.
    ``refinement``: each value is answered a second time, so many times as large, modulo one turn (protocol.scaling.refined); only in
    networks without look-ups, whose sums fill a small part of the torus.
    """

    classes: tuple[str, ...]
    scale: float
    function: str | None = None
    parts: tuple[Part, ...] | None = None
    refinement: int | None = None

    def __post_init__(self) -> None:
        """Checks the values. Raises ProgramError."""
        if not self.classes or not self.scale > 0:
            raise ProgramError(
                f"output has {len(self.classes)} classes and scale {self.scale}; it takes at least one class and a positive scale"
            )
        factor = self.refinement
        if factor is not None and not (isinstance(factor, int) and 2 <= factor <= scaling.MOST_REFINEMENT):
            raise ProgramError(
                f"output has the refinement {factor}; it is a whole number from 2 to {scaling.MOST_REFINEMENT}, or absent"
            )
        parts = self.parts or ()
        for function in (self.function, *(part.function for part in parts)):
            if function not in (None, *OUTPUTS):
                raise ProgramError(f"output has the function {function!r}; known are {', '.join(OUTPUTS)}")
        if parts and sum(prod(part.shape) for part in parts) != len(self.classes):
            raise ProgramError(
                f"the outputs have {[part.shape for part in parts]} values, and there are {len(self.classes)} names; give one for each"
            )
        if len({part.name for part in parts}) != len(parts) or any(not 0 < part.factor < np.inf for part in parts):
            raise ProgramError(
                f"the outputs are {[(part.name, part.factor) for part in parts]}; give each a name of its own and a positive factor"
            )
        if any(not 1 <= len(part.shape) <= 3 or min(part.shape) < 1 for part in parts):
            raise ProgramError(
                f"the outputs have the shapes {[part.shape for part in parts]}; each takes one to three sides"
            )

    @property
    def scales(self) -> NDArray[np.float64]:
        """Logit that one integer unit of each value stands for, [classes]."""
        parts = self.parts or (Part(name="", shape=(len(self.classes),)),)
        return self.scale * np.concatenate([np.full(prod(part.shape), part.factor) for part in parts])


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A layer at its place.

    Attributes:
        layer: what is done.
        sources: names of the layers (or IMAGE) whose results it takes, joined along their first axis.
        shape: of the joined input; ``delta`` turns for one integer unit of it.
        output_shape: of the result; ``output_delta`` turns for one integer unit of it.
        lookups: for one image.
    """

    layer: Layer
    sources: tuple[str, ...]
    shape: Shape
    delta: float
    output_shape: Shape
    output_delta: float
    lookups: int

    def scale(self, polynomial_size: int) -> Scale:
        """What the layer's circuit must know for tables of N = ``polynomial_size`` points."""
        return Scale(shape=self.shape, delta=self.delta, polynomial_size=polynomial_size)


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A checked network of layers from image to logits.

    Attributes:
        name: of the model, as users call it.
        version: of these weights.
        params: name of the parameter set that the scales were chosen for.
        profile: "fast", where a look-up's input carries noise that the network was trained with; or "exact", where every look-up reads an
            integer modulo the layer's modulus, so that logits are those of ``simulate.plain`` to the last bit.
        input: what goes in.
        layers: in an order in which each comes after its inputs; the last one gives one value for each class.
        output: what comes out.
        stem: the public part before the input, which the client computes; none in most networks.
        recurrent: certificates of its recurrent layers, if it states them.
    """

    name: str
    version: str
    params: str
    input: InputSpec
    layers: tuple[Layer, ...]
    output: OutputSpec
    profile: str = "fast"
    stem: Stem | None = None
    recurrent: tuple[Certificate, ...] = ()

    def __post_init__(self) -> None:
        """Checks that names are unique and that every layer fits its input. Raises ProgramError."""
        if self.stem and (self.input.encoding or self.input.sequences):
            raise ProgramError(
                "a program has a public part, and an encoding or sequences; the part takes images, in its own range"
            )
        if not (self.name and self.version and self.params):
            raise ProgramError("a program needs a name, a version and a parameter set")
        if self.profile not in PROFILES:
            raise ProgramError(f"profile {self.profile!r} is not known; it is one of {', '.join(PROFILES)}")
        if self.stem and self.stem.shape != self.input.shape:
            raise BadShapeError(f"the public part gives {self.stem.shape} values, the program takes {self.input.shape}")
        names = [layer.name for layer in self.layers]
        if wrong := {name for name in names if not name.isidentifier() or names.count(name) > 1 or name == IMAGE}:
            raise ProgramError(
                f"layer names {sorted(wrong)} are not unique identifiers other than {IMAGE!r}; rename them"
            )
        if not self.layers:
            raise ProgramError("a program needs at least one layer")
        for place, layer in enumerate(self.layers):
            if layer.shares is not None:
                layer.sharing(_before(self.layers[:place], layer.shares, layer.name))
        if any(isinstance(layer, Dense) for layer in self.layers) or not self.lookups:
            self._require_products()
        if self.output.refinement and self.lookups:
            raise ProgramError(
                "a program with look-ups answers each value once: their noise is larger than that of an answer; leave out the refinement"
            )
        if self.stages[-1].output_shape != (len(self.output.classes),):
            raise BadShapeError(
                f"the last layer gives {self.stages[-1].output_shape} values for {len(self.output.classes)} classes"
            )
        if self.recurrent:
            require(self, self.recurrent)
        if unused := [name for name in names[:-1] if name not in self.last_use]:
            raise ProgramError(f"no layer takes the results of {unused}; remove them or name them as inputs")
        for stage in self.stages:
            is_read = stage.lookups > 0 or stage is self.stages[-1]
            if is_read and (stage.layer.modulus is None) == (self.profile == "exact"):
                raise ProgramError(
                    f"layer {stage.layer.name!r} has modulus {stage.layer.modulus}; look-ups and logits have one in the exact profile only"
                )

    def _require_products(self) -> None:
        """Checks that a Program without look-ups is one dense layer, whose sums stay on the torus for every input. Raises ProgramError."""
        *moves, last = self.layers
        if not isinstance(last, Dense) or any(not isinstance(layer, Flatten) for layer in moves):
            raise ProgramError(
                f"a program without look-ups is one dense layer, with flatten before it if need be; this one has "
                f"{[layer.kind for layer in self.layers]}"
            )
        low, high = self.input.bounds
        weight, bias = last.weight.astype(np.int64), 0 if last.bias is None else last.bias.astype(np.int64)
        most = np.maximum(weight * high, weight * low).sum(axis=1) + bias
        least = np.minimum(weight * high, weight * low).sum(axis=1) + bias
        reach = float(max(most.max(), -least.min())) * self.input.delta
        if reach > MOST_REACH:
            raise ProgramError(
                f"sums of layer {last.name!r} reach {reach:.3f} turns for some inputs; at most {MOST_REACH}: lower the input's delta"
            )

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The layers with shapes and scales at their places."""
        stages: list[Stage] = []
        shapes: dict[str, Shape] = {IMAGE: self.input.shape}
        deltas = {IMAGE: self.input.delta}
        for layer in self.layers:
            sources = layer.inputs or (next(reversed(shapes)),)
            if unknown := [source for source in sources if source not in shapes]:
                raise ProgramError(f"layer {layer.name!r} takes {unknown}, which are no layers before it")
            shape = _joined_shape(layer.name, [shapes[source] for source in sources])
            delta = _common_delta(layer.name, {source: deltas[source] for source in sources})
            stage = Stage(
                layer=layer,
                sources=sources,
                shape=shape,
                delta=delta,
                output_shape=layer.output_shape(shape),
                output_delta=layer.output_delta(delta),
                lookups=layer.lookups(shape),
            )
            stages.append(stage)
            shapes[layer.name], deltas[layer.name] = stage.output_shape, stage.output_delta
        return tuple(stages)

    @property
    def sample_shape(self) -> Shape:
        """Of what users have: the stem's input, without a stem the program's."""
        return self.stem.input_shape if self.stem else self.input.shape

    @property
    def behind_stem(self) -> Self:
        """The secret part alone, which takes what the stem gives."""
        return replace(self, stem=None) if self.stem else self

    def integers(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Images uint8 [batch, ...] of ``sample_shape``, through the stem if there is one, as the integers that are encrypted.

        Raises:
            BadShapeError: anything but uint8 of this shape.
            OutOfLevelsError, BadStemError, ConfigurationError: see Stem.unit.
        """
        if self.stem is None:
            return self.input.integers(images)
        if images.dtype != np.uint8 or images.shape[1:] != self.sample_shape:
            raise BadShapeError(
                f"images are {images.dtype} {images.shape}; the program takes uint8 [batch, {self.sample_shape}]"
            )
        return scaling.to_integers(self.stem.unit(images / scaling.PIXEL_MAX), self.input.levels).astype(np.int64)

    @cached_property
    def last_use(self) -> dict[str, str]:
        """For each layer that another one reads, and IMAGE: the name of the last that reads it."""
        return {source: stage.layer.name for stage in self.stages for source in stage.sources}

    def walk(self, circuit: Circuit[T], x: T, polynomial_size: int) -> Iterator[tuple[Stage, T]]:
        """Runs every layer's circuit on ``x``, the input's values in C order; yields each stage with its result, the logits last.

        Args:
            circuit: numbers, variances, costs or ciphertexts.
            x: values of the input.
            polynomial_size: N, points of a table on half the torus.
        """
        yield from self.traverse(
            x, circuit.join, lambda stage, values: stage.layer.apply(circuit, values, stage.scale(polynomial_size))
        )

    def traverse(self, x: V, join: Callable[[list[V]], V], apply: Callable[[Stage, V], V]) -> Iterator[tuple[Stage, V]]:
        """Every stage with its result, in order; a result is dropped after its last use.

        Args:
            x: the program's input.
            join: puts several results together along their first axis.
            apply: the result of a stage from its joined input.
        """
        values = {IMAGE: x}
        del x
        for stage in self.stages:
            values[stage.layer.name] = apply(stage, self.take(values, stage, join))
            yield stage, values[stage.layer.name]

    def take(self, values: dict[str, V], stage: Stage, join: Callable[[list[V]], V]) -> V:
        """The joined input of a stage from results by name; those that no later stage reads are removed.

        ``join`` may empty the list that it is given, to let go of each part as soon as it is copied.
        """
        parts = [values[name] for name in stage.sources]
        for name in set(stage.sources):
            if self.last_use[name] == stage.layer.name:
                del values[name]
        return join(parts) if len(parts) > 1 else parts[0]

    @property
    def lookups(self) -> int:
        """Table look-ups for one image: a key switch and a bootstrap each."""
        return sum(stage.lookups for stage in self.stages)

    @property
    def answer_values(self) -> int:
        """Values of an answer: one for each class, or two where they are refined."""
        return scaling.answer_values(len(self.output.classes), self.output.refinement)

    @property
    def logit_delta(self) -> float:
        """Turns of one integer unit of the logits."""
        return self.stages[-1].output_delta

    @property
    def turns_to_logits(self) -> float:
        """Factor from decrypted torus values (turns) to logits."""
        return self.output.scale / self.logit_delta

    @property
    def logit_step(self) -> float | None:
        """All logits are whole multiples of this: in the exact profile, and after a last look-up. None where they carry noise."""
        return self.output.scale if self.profile == "exact" or self.stages[-1].lookups else None

    def logits(self, turns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Decrypted torus values [..., answer_values] as logits; rounded to whole multiples of ``logit_step`` if there is one.

        Raises:
            BadShapeError: these are not as many values as an answer has.
        """
        if turns.shape[-1] != self.answer_values:
            raise BadShapeError(f"{turns.shape[-1]} values were decrypted, an answer has {self.answer_values}")
        logits = scaling.to_logits(turns, self.turns_to_logits, self.logit_step, self.output.refinement)
        return logits * (self.output.scales / self.output.scale)

    @cached_property
    def digest(self) -> str:
        """SHA-256, as hex, of the canonical JSON and of every array with its name, type and shape."""
        description, arrays = self._to_spec()
        digest = hashlib.sha256(_canonical(description))
        for name, array in sorted(arrays.items()):
            digest.update(_canonical([name, array.dtype.str, array.shape]))
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Writes program.json and weights.safetensors into ``folder``, which is made if it is missing."""
        description, arrays = self._to_spec()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PROGRAM_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        save_file({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}, folder / WEIGHTS_FILE)
        if self.stem:
            (folder / STEM_FILE).write_bytes(self.stem.onnx)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads and checks a Program. Raises ProgramError, also if a file is missing or cannot be read."""
        try:
            description = json.loads((folder / PROGRAM_FILE).read_text(encoding="utf-8"))
            arrays = load_file(folder / WEIGHTS_FILE)
            has_stem = isinstance(description, dict) and "stem" in description
            onnx = (folder / STEM_FILE).read_bytes() if has_stem else b""
        except (OSError, ValueError, RecursionError, SafetensorError) as error:
            raise ProgramError(f"no program can be read from {folder}: {error}") from error
        try:
            return cls._from_spec(description, arrays, onnx)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ProgramError(
                f"{folder / PROGRAM_FILE} lacks a field or has one of the wrong type: {error!r}"
            ) from error

    def _to_spec(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        layers, arrays = [], {}
        for layer in self.layers:
            spec, own = layer.to_spec()
            layers.append(spec)
            arrays.update({f"{layer.name}.{field}": array for field, array in own.items()})
        description = {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "params": self.params,
            "profile": self.profile,
            "input": _without_nothing(asdict(self.input)),
            "layers": layers,
            "output": _without_nothing(asdict(self.output)),
        }
        if self.stem:
            description["stem"] = self.stem.to_spec()
        if self.recurrent:
            description["recurrent"] = [_without_nothing(asdict(certificate)) for certificate in self.recurrent]
        return description, arrays

    @classmethod
    def _from_spec(cls, description: dict[str, Any], arrays: dict[str, NDArray[Any]], onnx: bytes) -> Self:
        if description["format"] != FORMAT:
            raise ProgramError(f"program.json has format {description['format']}; this release reads {FORMAT}")
        layers, shape = [], tuple(map(int, description["input"]["shape"]))
        for spec in description["layers"]:
            if spec["kind"] not in KINDS:
                raise UnsupportedLayerError(
                    f"layer {spec['name']!r} is of kind {spec['kind']!r}; known kinds are {sorted(KINDS)}"
                )
            prefix = f"{spec.get('shares') or spec['name']}."
            own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            layers.append(KINDS[spec["kind"]].from_spec(spec, own))
        return cls(
            name=description["name"],
            version=description["version"],
            params=description["params"],
            profile=description["profile"],
            input=_input_of(description["input"], shape),
            layers=tuple(layers),
            output=_output_of(description["output"]),
            stem=Stem.from_spec(description["stem"], onnx, shape) if "stem" in description else None,
            recurrent=tuple(Certificate(**_with_tuples(members)) for members in description.get("recurrent", ())),
        )


def _before(layers: Sequence[Layer], name: str, reader: str) -> Layer:
    """The layer of this name that has its own arrays. Raises ProgramError."""
    found = next((layer for layer in layers if layer.name == name and layer.shares is None), None)
    if found is None:
        raise ProgramError(f"layer {reader!r} shares the arrays of {name!r}, which is no layer before it with its own")
    return found


def _without_nothing(values: dict[str, Any]) -> dict[str, Any]:
    """Without members that are None, False or (): they came after format 1, and older programs keep their digests."""
    return {key: value for key, value in values.items() if value is not None and value is not False and value != ()}


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """With tuples where JSON has lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _input_of(spec: dict[str, Any], shape: Shape) -> InputSpec:
    encoding = spec.get("encoding")
    if encoding is not None:
        encoding = Encoding(**_with_tuples(encoding))
    return InputSpec(**spec | {"shape": shape, "encoding": encoding})


def _output_of(spec: dict[str, Any]) -> OutputSpec:
    parts = spec.get("parts")
    if parts is not None:
        parts = tuple(Part(**part | {"shape": tuple(part["shape"])}) for part in parts)
    return OutputSpec(**spec | {"classes": tuple(spec["classes"]), "parts": parts})


def _joined_shape(layer: str, shapes: Sequence[Shape]) -> Shape:
    if len({shape[1:] for shape in shapes}) > 1:
        raise BadShapeError(f"layer {layer!r} joins values of shapes {shapes}; they may differ in the first axis only")
    return sum(shape[0] for shape in shapes), *shapes[0][1:]


def _common_delta(layer: str, deltas: dict[str, float]) -> float:
    first = next(iter(deltas.values()))
    if any(abs(delta / first - 1) > DELTA_TOLERANCE for delta in deltas.values()):
        raise ProgramError(
            f"layer {layer!r} joins values of different scales, turns for one unit: {deltas}; make them equal"
        )
    return first


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
