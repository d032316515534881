"""From a float nn.Module to a trainable network of power-of-two weights that computes nearly the same, scaled by calibration images."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ciphershift.errors import UnsupportedLayerError
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.layers.max_pool import RAMP as POOL_RAMP
from ciphershift.he_layers.program import IMAGE
from ciphershift.he_layers.simulate import CircuitNoise
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.graph import Step
from ciphershift.models.compiler.network import Network
from ciphershift.models.compiler.scales import PIXEL_LEVELS
from ciphershift.models.compiler.simplify import simplify
from ciphershift.models.compiler.trace import read
from ciphershift.models.nn.layers import MAX_RAMP, Add, Head, ReLU, deviation, per_channel
from ciphershift.models.nn.shift import ShiftConv2d, ShiftLinear, ShiftWeights

CLIPPED = 0.998
"""Share of a ReLU's inputs that are below the top of its ramp."""
MAX_OUTSIDE = 1e-2
"""Share of a look-up's inputs that may lie outside its valid window, on the calibration images."""
MAX_OUTSIDE_ELSEWHERE = 2e-2
"""The same on inverted images and on noise, which tell whether other images clip or wrap."""
DRIVES = (0.02, 0.16)
"""Least and greatest standard deviation, in turns, that is given to the sums of a layer."""
ROUNDING = 1e-4
"""Relative error of float sums that decides nothing."""
NOISE_DEVIATIONS = 3
"""Standard deviations of the look-up's noise that are kept free at both ends of the window."""


def convert(
    module: nn.Module,
    calibration_data: Tensor,
    *,
    params: str = parameter_sets.DEFAULT,
    levels: int = 31,
    exponents: int = 4,
    max_outside: float = MAX_OUTSIDE,
) -> Network:
    """A trainable network with the module's weights as powers of two, activations on integer levels, and the circuit's noise.

    Batch norms are folded, max-pools are moved before the activations that they follow; the module itself is left as it is. The result
    is in training mode, quantized, with the noise that the parameter set predicts for each of its layers; train it on with
    models.training.loop.fine_tune.

    Args:
        module: made of the operations of docs/networks.md, for images [B, C, H, W] in [0, 1], returning logits.
        calibration_data: some hundred such images, float, of the kind that the network will see.
        params: name of the parameter set.
        levels: greatest integer of an activation.
        exponents: powers of two that a weight may take: 1, 2, .., 2^(exponents - 1).
        max_outside: share of a layer's sums that may leave the window of its look-up, which fixes the layer's scale on the torus.

    Raises:
        UnsupportedLayerError: lists everything that models.cost_report lists.
    """
    shape = tuple(calibration_data.shape[1:])
    traced = simplify(read(module, shape))
    if traced.findings:
        raise UnsupportedLayerError("this network cannot be converted: " + "; ".join(map(str, traced.findings)))
    network = Network(traced.operations, shape, levels=levels, exponents=exponents)
    noise = CircuitNoise.predicted(parameter_sets.get(params))
    network.eval()
    with torch.no_grad():
        _Calibration(network, noise, max_outside).run(traced.operations, calibration_data)
    network.train()
    network.quantize(True)
    network.noise = noise
    return network


@dataclass(kw_only=True, slots=True)
class _Value:
    """What a node gives: ``x`` [B, C, ...]; the module's value is unit * x + shift, both [C].

    The first images are those of the calibration, the others are from elsewhere; statistics are taken from the former.
    """

    x: Tensor
    unit: Tensor
    shift: Tensor


class _Calibration:
    """Sets weights and statistics node by node, each from the values that the nodes before it give, unquantized and without noise."""

    def __init__(self, network: Network, noise: CircuitNoise, max_outside: float) -> None:
        self.network, self.noise, self.max_outside = network, noise, max_outside
        self.known = 0
        self.values: dict[str, _Value] = {}
        self.pooled: dict[str, Tensor] = {}
        self.spread: dict[str, Tensor] = {}

    def run(self, operations: list[ir.Operation], images: Tensor) -> None:
        channels, self.known = images.shape[1], len(images)
        some = images[: -(-len(images) // 4)]
        images = torch.cat([images, 1 - some, torch.rand_like(some)])
        self.values[IMAGE] = _Value(
            x=images * PIXEL_LEVELS, unit=torch.full((channels,), 1 / PIXEL_LEVELS), shift=torch.zeros(channels)
        )
        last_use = self.network.wiring.last_use
        for (step, node), operation in zip(self.network.steps(), operations, strict=True):
            self.values[step.name] = self._value(step, node, operation)
            for name in set(step.inputs):
                if last_use[name] == step.name:
                    del self.values[name]

    def _value(self, step: Step, node: nn.Module, operation: ir.Operation) -> _Value:
        inputs = [self.values[name] for name in step.inputs]
        first = inputs[0]
        match node, operation:
            case ShiftConv2d() | ShiftLinear() | Head(), ir.Conv2d() | ir.Linear():
                return self._linear(step, node, operation, first)
            case ReLU(), ir.ReLU():
                return self._activation(step, node, operation, first)
            case Add(), _:
                return self._sum(step, node, inputs)
            case _, ir.MaxPool2d():
                spans = functional.max_pool2d(first.x, *_window(operation)) + functional.max_pool2d(
                    -first.x, *_window(operation)
                )
                self.pooled[step.name] = spans
                return _Value(x=functional.max_pool2d(first.x, *_window(operation)), unit=first.unit, shift=first.shift)
            case _, ir.AvgPool2d():
                return _Value(
                    x=node(first.x), unit=first.unit / (operation.kernel[0] * operation.kernel[1]), shift=first.shift
                )
            case _, ir.Flatten():
                each = first.x[0].numel() // len(first.unit)
                unit, shift = (values.repeat_interleave(each) for values in (first.unit, first.shift))
                return _Value(x=node(first.x), unit=unit, shift=shift)
            case _, ir.ChannelShuffle():
                unit, shift = (node(values.view(1, -1, 1, 1)).flatten() for values in (first.unit, first.shift))
                return _Value(x=node(first.x), unit=unit, shift=shift)
            case _, ir.Concat():
                unit, shift = torch.cat([v.unit for v in inputs]), torch.cat([v.shift for v in inputs])
                return _Value(x=node(*[v.x for v in inputs]), unit=unit, shift=shift)
        raise AssertionError(f"{step.name} is a {type(node).__name__} for a {type(operation).__name__}")

    def _linear(
        self, step: Step, node: ShiftConv2d | ShiftLinear | Head, operation: ir.Conv2d | ir.Linear, source: _Value
    ) -> _Value:
        linear = node.linear if isinstance(node, Head) else node
        gain = source.unit.mean()
        relative = source.unit / gain
        groups = operation.groups if isinstance(operation, ir.Conv2d) else 1
        per_group = relative.view(groups, -1).repeat_interleave(len(operation.weight) // groups, dim=0)
        linear.weight.copy_(operation.weight * per_group.view(*per_group.shape, *[1] * (operation.weight.dim() - 2)))
        if isinstance(node, Head):
            node.gain.copy_(gain)
            node.bias.copy_(operation.bias)
            x = node.sums(source.x)
            node.peak.copy_(x[: self.known].abs().max())
            return _Value(x=x, unit=node.logit().expand(len(operation.bias)), shift=torch.zeros_like(operation.bias))
        x = linear(source.x)
        self.spread[step.name] = deviation(x[: self.known])
        unit = (linear.scale().flatten() * gain).expand(len(operation.bias))
        return _Value(x=x, unit=unit, shift=operation.bias)

    def _sum(self, step: Step, node: Add, inputs: list[_Value]) -> _Value:
        """Brings all terms to one unit: free terms take it as their reference, of the others one may only be a power of two times it."""
        free = [self.network.wiring.free(step, name) for name in step.inputs]
        fixed = [value.unit for value, is_free in zip(inputs, free, strict=True) if not is_free]
        unit = torch.stack(fixed).amin(0) if fixed else inputs[0].unit
        shift = torch.stack([value.shift for value in inputs]).sum(0)
        terms = []
        for term, (name, value, is_free) in enumerate(zip(step.inputs, inputs, free, strict=True)):
            if is_free:
                linear = self.network.node(name)
                assert isinstance(linear, ShiftWeights), "free terms are linear layers"
                linear.refer_to(unit * linear.scale().flatten() / value.unit)
                terms.append(value.x * per_channel(value.unit / unit, value.x))
            else:
                node.factors[term] = torch.log2(value.unit / unit).round()
                terms.append(value.x * per_channel(2.0 ** node.factors[term], value.x))
        x = torch.stack(terms).sum(0)
        self.spread[step.name] = deviation(x[: self.known])
        return _Value(x=x, unit=unit, shift=shift)

    def _activation(self, step: Step, node: ReLU, operation: ir.ReLU, source: _Value) -> _Value:
        slope, shift = source.unit, source.shift
        if operation.affine is not None:
            slope, shift = slope * operation.affine.scale, shift * operation.affine.scale + operation.affine.shift
        known = source.x[: self.known]
        real = source.x * per_channel(slope, source.x) + per_channel(shift, source.x)
        owner = self.network.wiring.owner[step.name]
        node.mean.copy_(known.mean([0, *range(2, known.dim())]))
        node.std.copy_(deviation(known))
        node.spread.copy_(self.spread[owner] if owner else node.std)
        node.offset.copy_((node.mean + shift / slope) / node.std)
        if operation.high is not None:
            top = torch.full_like(slope, operation.high)
        else:
            positive = real[: self.known].transpose(0, 1).flatten(1).clamp_min(0)
            top = torch.quantile(_sample(positive), CLIPPED, dim=1)
            top = torch.maximum(top, slope * node.std * 0.5)  # a channel that is hardly ever positive
        if self._is_added(step):
            top = 2.0 ** torch.log2(top).ceil()
        node.top.copy_(top / (slope * node.std))
        self._choose_drive(step, node, source.x)
        turns = self._turns(step, node, float(node.drive))
        reached = node.tops(turns) * slope * node.std
        if self._is_added(step):
            # Only a ramp that the window really shortened goes to the next lower power of two: without the tolerance the last bit of a
            # float sum would halve a ramp that fits.
            shortened = reached < top * (1 - ROUNDING)
            reached = torch.where(shortened, 2.0 ** torch.log2(reached).floor(), top)
            node.top.copy_(reached / (slope * node.std))
        unit = reached / node.levels
        return _Value(
            x=torch.clamp(real / per_channel(unit, real), node.lowest, node.levels),
            unit=unit,
            shift=torch.zeros_like(unit),
        )

    def _is_added(self, step: Step) -> bool:
        """Whether a sum reads the activation beside another value whose unit is given: both are then powers of two."""
        for other in self.network.wiring.steps:
            if other.kind is ir.Add:
                fixed = [name for name in other.inputs if not self.network.wiring.free(other, name)]
                if len(fixed) > 1 and step.name in fixed:
                    return True
        return False

    def _turns(self, step: Step, node: ReLU, drive: float) -> Tensor:
        """Turns for one unit of each channel at this drive."""
        least = torch.zeros_like(node.spread)
        room = 3 if self.network.wiring.owner[step.name] else 0
        exponent = torch.log2(node.spread.max() / node.spread).round().clamp(0, room) + least
        return drive / (node.spread * 2.0**exponent).pow(2).mean().sqrt() * 2.0**exponent

    def _choose_drive(self, step: Step, node: ReLU, x: Tensor) -> None:
        """The greatest drive for which few enough of the sums leave a window of the activation or of its pools."""
        low, high = DRIVES
        for _ in range(12):
            middle = (low * high) ** 0.5
            seen, elsewhere = self._outside(step, node, x, middle)
            fits = seen <= self.max_outside and elsewhere <= max(self.max_outside, MAX_OUTSIDE_ELSEWHERE)
            low, high = (middle, high) if fits else (low, middle)
        node.drive.fill_(low)

    def _outside(self, step: Step, node: ReLU, x: Tensor, drive: float) -> tuple[float, float]:
        """Share of the sums that leave the window at this drive, on calibration images and on others.

        Of several windows, the activation's and those of pools before it, the one that is left most often counts.
        """
        turns = self._turns(step, node, drive)
        under_input, _ = self.network.wiring.keys[step.inputs[0]]
        margin = NOISE_DEVIATIONS * self.noise.lookup_input(under_input, True)
        above_zero = (x - per_channel(node.mean, x) + per_channel(node.offset * node.std, x)) * per_channel(turns, x)
        top = per_channel(torch.clamp(node.top * node.std * turns, max=MAX_RAMP * node.levels / node.span), x)
        above_start = above_zero - node.lowest / node.levels * top
        outside = [(above_start > 0.5 - margin) | (above_start < -0.5 + margin + top * node.span / node.levels)]
        pool = step.inputs[0]
        while pool in self.pooled:
            spans = self.pooled[pool]
            outside.append(spans * per_channel(turns, spans) > POOL_RAMP - margin)
            pool = self.network.wiring.by_name[pool].inputs[0]
        shares = [(float(o[: self.known].float().mean()), float(o[self.known :].float().mean())) for o in outside]
        return max(seen for seen, _ in shares), max(elsewhere for _, elsewhere in shares)


def _window(pool: ir.MaxPool2d) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    return pool.kernel, pool.stride, pool.padding


def _sample(values: Tensor, limit: int = 100_000) -> Tensor:
    """At most ``limit`` of each row's values, evenly spread: enough for a quantile."""
    return values[:, :: max(1, values.shape[1] // limit)]
