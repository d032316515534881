"""From a trained network to a Program: integer weights, integer biases, multipliers and torus scales."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ciphershift.errors import BadShapeError, ProgramError
from ciphershift.he_layers import layers
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.layers.layer import MAX_EXPONENT
from ciphershift.he_layers.program import IMAGE, InputSpec, OutputSpec, Program
from ciphershift.he_layers.recurrence import Certificate, certificates
from ciphershift.models.compiler.graph import Step
from ciphershift.models.compiler.network import Network
from ciphershift.models.compiler.scales import REFINEMENT
from ciphershift.models.nn.activations import CReLU, LookUp, ReLU
from ciphershift.models.nn.layers import Add, AvgPool2d, Concat, Gather, Head, MaxPool2d
from ciphershift.models.nn.shift import ShiftConv2d, ShiftLinear, ShiftWeights
from ciphershift.protocol.outputs import Part

TABLE_STEPS = 256
"""Of a look-up's table: half a step is less than half of the noise that a look-up reads, under every set of the fast profile."""


Classes = tuple[str, ...] | Mapping[str, tuple[str, ...]]


def export(network: Network, *, name: str, version: str, params: str, classes: Classes) -> Program:
    """The Program that computes what ``network``, quantized, computes in evaluation mode.

    Args:
        network: trained with integer weights; its statistics fix the torus scales.
        name: of the model.
        version: of the weights.
        params: name of the parameter set whose noise the network was trained with.
        classes: names of the classes, or of other values; of several outputs, by name of the output. An output of the shape (C, H, W) or
            (C, L) has one for each of its values or one for each channel.

    Raises:
        UnknownParamsError: there is no such parameter set.
        BadShapeError: there are more or fewer names than values.
        ProgramError: a function has no finite value somewhere on the ramp of its look-up.
    """
    parameter_sets.get(params)
    return _Exporter(network).program(name=name, version=version, params=params, classes=classes)


L = TypeVar("L", bound=layers.Layer)


class _Exporter:
    """Writes down step after step."""

    def __init__(self, network: Network) -> None:
        self.network, self.torus = network, network.torus()
        self.layers: list[layers.Layer] = []
        self.gives: dict[str, tuple[str, ...]] = {IMAGE: (IMAGE,)}
        self.shared: dict[str, layers.Layer] = {}

    def program(self, *, name: str, version: str, params: str, classes: Classes) -> Program:
        network, torus = self.network, self.torus
        for step, node in network.steps():
            self._step(step, node)
        program = Program(
            name=name,
            version=version,
            params=params,
            input=InputSpec(
                shape=tuple(network.input_shape),
                levels=network.inputs.levels,
                delta=float(torus.delta[IMAGE]),
                encoding=network.inputs.encoding,
                sequences=network.inputs.sequences,
            ),
            layers=tuple(self.layers),
            output=_output(network, classes),
            stem=network.stem,
        )
        return replace(program, recurrent=self._certificates(program))

    def _certificates(self, program: Program) -> tuple[Certificate, ...]:
        """With the network's ``state_weights``, in which training kept it contractive, unless the norm in levels is as small."""
        by_name = self.network.wiring.by_name
        weights = {_name(by_name[name]): tuple(own.tolist()) for name, own in self.network.state_weights.items()}
        both = zip(certificates(program), certificates(program, weights), strict=True)
        return tuple(min(pair, key=lambda certificate: certificate.norm) for pair in both)

    def _step(self, step: Step, node: nn.Module) -> None:
        if isinstance(node, Concat | nn.Identity):
            self.gives[step.name] = self._given(step)
        elif isinstance(node, Gather):
            self._gather(step, node)
        elif isinstance(node, Add):
            for term, name in enumerate(step.inputs):
                self._term(step, node, term, name)
            terms = tuple(name for term in range(len(step.inputs)) for name in self.gives[_term_name(step, term)])
            self._append(layers.Add(name=_name(step), terms=len(step.inputs)), step.name, terms)
        elif isinstance(node, ShiftWeights):
            if not self._is_term(step):  # a sum writes its terms down: it knows their scale
                self._linear(step, self.torus.exponent[step.name], step.name, _name(step))
        else:
            self._append(self._layer(step, node), step.name, self._given(step))

    def _given(self, step: Step) -> tuple[str, ...]:
        """Names of the layers that hold the step's inputs."""
        return tuple(name for source in step.inputs for name in self.gives[source])

    def _append(self, layer: layers.Layer, value: str, inputs: tuple[str, ...]) -> None:
        before = self.layers[-1].name if self.layers else IMAGE
        self.layers.append(layer if inputs == (before,) else replace(layer, inputs=inputs))
        self.gives[value] = (layer.name,)

    def _gather(self, step: Step, node: Gather) -> None:
        inputs = self._given(step)
        if node.index is None:
            self._append(layers.Reshape(name=_name(step), shape=node.shape), step.name, inputs)
            return
        if len(inputs) > 1:  # the inputs of a layer are joined along their first axis: as vectors they fit
            for number, name in enumerate(step.inputs):
                flat = layers.Flatten(name=f"{_name(step)}_flat{number}")
                self._append(flat, f"{step.name} part {number}", self.gives[name])
            inputs = tuple(
                one for number in range(len(step.inputs)) for one in self.gives[f"{step.name} part {number}"]
            )
        index = node.index.numpy().astype(np.int32)
        self._append(layers.Gather(name=_name(step), shape=node.shape, index=index), step.name, inputs)

    def _is_term(self, step: Step) -> bool:
        """Whether a sum chooses this linear layer's scale."""
        wiring = self.network.wiring
        return any(
            isinstance(node, Add) and step.name in reader.inputs and wiring.free(reader, step.name)
            for reader, node in self.network.steps()
        )

    def _term(self, step: Step, node: Add, term: int, name: str) -> None:
        """Writes a term of a sum down, times the powers of two that bring it to the sum's scale."""
        exponent, value = self.torus.exponent[step.name], _term_name(step, term)
        if self.network.wiring.free(step, name):
            self._linear(self.network.wiring.by_name[name], exponent, value, f"{_name(step)}_scale{term}")
        else:
            self.gives[value] = self.gives[name]
            rest = exponent + node.factors[term] - self.torus.exponent[name]
            ties = self.network.wiring.ties
            tied = f"{ties[step.name]} {ties.get(name, name)}" if step.name in ties else None
            self._scaled(rest, value, f"{_name(step)}_scale{term}", len(step.shape), tied)

    def _linear(self, step: Step, exponent: Tensor, value: str, scaled: str) -> None:
        """Writes a linear layer down, times the powers of two for each channel that bring its sums to their scale."""
        linear = self.network.node(step.name)
        assert isinstance(linear, ShiftConv2d | ShiftLinear), "only these have powers of two"
        exponent = exponent + linear.shift()
        folded = torch.clamp(exponent, max=MAX_EXPONENT + 1 - linear.exponents)
        self._append(self._shared(step, _linear(step, linear, folded)), value, self._given(step))
        self._scaled(exponent - folded, value, scaled, len(step.shape), self.network.wiring.ties.get(step.name))

    def _scaled(self, exponent: Tensor, value: str, name: str, axes: int, tied: str | None = None) -> None:
        """Writes down what multiplies each channel of a value by its power of two; ``tied``: a name for all steps that it is one for."""
        part = 0
        while exponent.max() > 0:
            now = torch.clamp(exponent, max=MAX_EXPONENT)
            layer = _powers(f"{name}{'abcdefgh'[part]}", now, axes)
            if tied is not None:
                known = self.shared.setdefault(f"{tied} scale {part}", layer)
                layer = layer if known is layer else layer.sharing(known)
            self._append(layer, value, self.gives[value])
            exponent, part = exponent - now, part + 1

    def _shared(self, step: Step, layer: L) -> L:
        """A layer with the arrays of the first one that is tied to it."""
        first = self.network.wiring.ties.get(step.name)
        if first is None:
            return layer
        known = self.shared.setdefault(first, layer)
        return layer if known is layer else layer.sharing(known)

    def _layer(self, step: Step, node: nn.Module) -> layers.Layer:
        match node:
            case CReLU():
                return self._shared(step, layers.CReLU(**self._ramp(step, node)))
            case ReLU():
                return self._shared(step, layers.ReLU(**self._ramp(step, node), lowest=node.lowest))
            case LookUp():
                return self._shared(step, self._look_up(step, node))
            case MaxPool2d():
                return layers.MaxPool2d(name=_name(step), kernel=node.kernel, stride=node.stride, padding=node.padding)
            case AvgPool2d():
                return layers.AvgPool2d(name=_name(step), kernel=node.kernel, stride=node.stride, padding=node.padding)
            case nn.Flatten():
                return layers.Flatten(name=_name(step))
            case nn.ChannelShuffle():
                return layers.ChannelShuffle(name=_name(step), groups=node.groups)
            case Head():
                bias = _whole_bias(step, node.bias.double() / node.logit().double())
                kind = layers.Linear if node.bounds is None else layers.Dense
                integer = np.int8 if node.bounds is None else np.int16
                return kind(name=_name(step), weight=_integers(node.linear.integer_weight()).astype(integer), bias=bias)
        raise AssertionError(f"{step.name} is a {type(node).__name__}, which no layer does")

    def _ramp(self, step: Step, node: ReLU) -> dict[str, Any]:
        """Members of a layer with a ramp."""
        source = step.inputs[0]
        units = 2.0 ** self.torus.exponent[source].double()
        std = node.std.double()
        bias = (node.offset.double() * std - node.mean.double()) * units
        multiplier = node.levels / (node.tops(self.torus.turns(source)).double() * std * units)
        return {
            "name": _name(step),
            "bias": _whole_bias(step, bias),
            "multiplier": multiplier.detach().numpy(),
            "levels": node.levels,
            "delta_out": float(self.torus.delta[step.name]),
        }

    def _look_up(self, step: Step, node: LookUp) -> layers.LookUp:
        source = step.inputs[0]
        units = 2.0 ** self.torus.exponent[source].double()
        std, mean, offset = node.std.double() * units, node.mean.double() * units, node.offset.double()
        low, high = (bound.double() for bound in node.bounds(self.torus.turns(source)))
        bias = torch.round(-(mean + (low - offset) * std))
        multiplier = TABLE_STEPS / ((high - low) * std)
        # Where each step's middle lies, in the module's normalized units: a rounded bias moves no value.
        sums = (torch.arange(TABLE_STEPS).view(-1, 1) + 0.5) / multiplier - bias
        u = torch.minimum(torch.maximum((sums - mean) / std + offset, low), high)
        u[0], u[-1] = low, high  # what lies beyond the ramp, also where a function jumps at its end
        with torch.no_grad():
            values = node.values(u.float().view(*u.shape, *[1] * (len(step.shape) - 1)))
        return layers.LookUp(
            name=_name(step),
            bias=_whole_bias(step, bias),
            multiplier=multiplier.detach().numpy(),
            values=_rounded_up(step, values.reshape(TABLE_STEPS, -1).T).astype(np.int16),
            delta_out=float(self.torus.delta[step.name]),
        )


def _output(network: Network, classes: Classes) -> OutputSpec:
    """Names, scales and functions of what the network returns."""
    given = classes if isinstance(classes, Mapping) else {"": classes}
    if given.keys() != {part.name for part in network.parts}:
        names = ", ".join(repr(part.name) for part in network.parts)
        raise BadShapeError(
            f"names are given for {', '.join(map(repr, given))}; the network returns {names}: give classes={{name: names of its values}}"
            if names != "''"
            else "the network returns one output: give the names of its values as a tuple"
        )
    spec = OutputSpec(
        classes=tuple(name for part in network.parts for name in _names(part, given[part.name])),
        scale=float(network.head.unit()),
        refinement=None if network.head.bounds is None else REFINEMENT,
    )
    factors = torch.split(network.head.factor, list(network.head.sizes))
    parts = tuple(replace(p, factor=float(f[0])) for p, f in zip(network.parts, factors, strict=True))
    if len(parts) == 1 and len(parts[0].shape) == 1:
        return replace(spec, function=parts[0].function)
    return replace(spec, parts=parts)


def _names(part: Part, given: tuple[str, ...]) -> tuple[str, ...]:
    """A name for each value of an output."""
    if len(given) == prod(part.shape):
        return given
    if len(given) != part.shape[0]:
        raise BadShapeError(
            f"the output {part.name!r} has the shape {part.shape} and {len(given)} names; give {prod(part.shape)} or {part.shape[0]}"
        )
    places = [",".join(map(str, place)) for place in np.ndindex(*part.shape[1:])]
    return tuple(f"{name}[{place}]" for name in given for place in places)


def _linear(step: Step, node: ShiftConv2d | ShiftLinear, exponent: Tensor) -> layers.Layer:
    scale = (2.0**exponent).view(-1, *[1] * (node.weight.dim() - 1))
    weight = _whole(node.integer_weight() * scale)
    if isinstance(node, ShiftLinear):
        return layers.Linear(name=_name(step), weight=weight)
    return layers.Conv2d(name=_name(step), weight=weight, stride=node.stride, padding=node.padding, groups=node.groups)


def _powers(name: str, exponent: Tensor, axes: int) -> layers.Layer:
    """Each channel times its power of two."""
    power = _whole(2.0**exponent)
    if axes == 1:
        return layers.Linear(name=name, weight=np.diag(power))
    return layers.Conv2d(name=name, weight=power.reshape(-1, 1, 1, 1), groups=len(power))


def _name(step: Step) -> str:
    """The step's name; those of an nn.Sequential, which are numbers, become words."""
    return f"layer{step.name}" if step.name.startswith("_") else step.name


def _term_name(step: Step, term: int) -> str:
    return f"{step.name} term {term}"


def _whole(weights: Tensor) -> NDArray[np.int8]:
    whole = _integers(weights)
    # An exponent below zero would lose weights without a word.
    assert np.allclose(whole, weights.detach().numpy(), atol=1e-3), "exponents are chosen so that weights stay whole"
    return whole.astype(np.int8)


def _whole_bias(step: Step, bias: Tensor) -> NDArray[np.int32]:
    """Nearest integers. Raises ProgramError if they are too great beside the weights."""
    whole = _integers(bias)
    if np.abs(whole).max() >= 2**31:
        raise ProgramError(
            f"{step.name!r} adds {np.abs(whole).max():.3g} units of its weights, which are next to nothing beside it: take the constant out"
        )
    return whole.astype(np.int32)


def _rounded_up(step: Step, values: Tensor) -> NDArray[np.int64]:
    """Nearest integers, halves upwards, as in training. Raises ProgramError for what is no number."""
    if wrong := int((~torch.isfinite(values)).sum()):
        raise ProgramError(
            f"{step.name!r} has no finite value for {wrong} of {values.numel()} steps of its table: training has moved its inputs to where "
            "its function is not defined; clip them in the module (torch.clamp), or train with a lower learning rate"
        )
    return np.floor(values.detach().numpy() + 0.5).astype(np.int64)


def _integers(values: Tensor) -> NDArray[np.int64]:
    return np.asarray(np.rint(values.detach().double().numpy()), dtype=np.int64)
