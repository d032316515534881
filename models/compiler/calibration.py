"""Weights, statistics and scales of a network from calibration data, step by step, unquantized and without noise."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ciphershift.errors import NotEquivalentError, UnsupportedLayerError
from ciphershift.he_layers.program import IMAGE
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.drives import ROUNDING, Drives
from ciphershift.models.compiler.equivalence import CLIPPING, require_heard, require_same, require_same_outputs
from ciphershift.models.compiler.fitting import comparable, fit_ramp, fit_results
from ciphershift.models.compiler.followers import taps
from ciphershift.models.compiler.graph import Step
from ciphershift.models.compiler.network import Network
from ciphershift.models.compiler.reals import reals
from ciphershift.models.nn.activations import Activation, CReLU, LookUp, ReLU, deviation, per_channel
from ciphershift.models.nn.layers import Add, Head
from ciphershift.models.nn.lookup import side_by_side
from ciphershift.models.nn.shift import ShiftConv2d, ShiftLinear, ShiftWeights

CLIPPED = 0.998
"""Share of a ReLU's inputs that are below the top of its ramp."""
RARE_CLIPPED = 0.98
"""The same of its positive inputs: where these are few, the few are all that is heard of the channel."""
SMALL = 16.0
"""The greatest weight of a tied layer of taps beside the least one that has a unit of its own."""
FAR, NEAR = 3.0, 2.0
"""A channel whose mean lies more than FAR of the layer's deviations above zero is scaled down until it lies at NEAR."""


@dataclass(kw_only=True, slots=True)
class _Value:
    """What a node gives: ``x`` [B, C, ...]; the module's value is unit * x + shift, both [C].

    The first samples are those of the calibration, the others are from elsewhere; statistics are taken from the former.
    """

    x: Tensor
    unit: Tensor
    shift: Tensor

    def real(self, x: Tensor) -> Tensor:
        """The module's values for ``x``."""
        return x * per_channel(self.unit, x) + per_channel(self.shift, x)


class Calibration:
    """Sets a network's weights and statistics node by node, each from the values that the nodes before it give."""

    def __init__(self, network: Network, drives: Drives, truth: dict[str, Tensor]) -> None:
        """Prepare.

        Args:
            network: built from the operations.
            drives: chooses how far sums reach on the torus.
            truth: what the module itself computes, by name of its step, for the first calibration samples.
        """
        self.network, self.truth, self.drives, self.known = network, truth, drives, drives.known
        self.values: dict[str, _Value] = {}
        self.exact: dict[str, Tensor] = {}
        self.spread: dict[str, Tensor] = {}
        self.sums: dict[str, Tensor] = {}  # by first of tied activations: the module's inputs of all steps
        self.units: dict[str, Tensor] = {}  # by first of tied activations: that of its sums
        self.results: dict[str, Tensor] = {}  # and that of its results
        self.least: dict[str, Tensor] = {}  # by first of tied sums: the least unit of their terms, at any step
        self.done: set[str] = set()  # tied activations and linear layers that are set

    def run(self, operations: list[ir.Operation], integers: Tensor) -> None:
        """Goes through the steps in order; ``integers`` are the network's inputs, those from elsewhere last.

        Raises:
            NotEquivalentError: a step computes something else than the module's; the first such step is named.
        """
        unit, zero = self.network.inputs.scale(integers.shape[1])
        first = self.values[IMAGE] = _Value(x=integers, unit=unit, shift=zero)
        count = len(next(iter(self.truth.values()), integers[: self.known]))
        self.exact[IMAGE] = first.real(integers[:count])
        self._run_tied(operations)
        last_use = self.network.wiring.last_use
        for (step, node), operation in zip(self.network.steps(), operations, strict=True):
            inputs = [self.values[name] for name in step.inputs]
            value = self.values[step.name] = self._value(step, node, operation)
            self._compare(step, node, operation, inputs, value)
            for name in set(step.inputs):
                if last_use[name] == step.name:
                    del self.values[name], self.exact[name]

    def _run_tied(self, operations: list[ir.Operation]) -> None:
        """Finds what tied activations will see at all of their steps, those of the calibration data first, and the units of functions."""
        wiring, image = self.network.wiring, self.values[IMAGE]
        steps = [step for step in wiring.steps if step.name in wiring.ties and issubclass(step.kind, ir.Activation)]
        found = reals(operations, image.real(image.x), {step.inputs[0] for step in steps}) if steps else {}
        for first in {wiring.ties[step.name] for step in steps}:
            sums = [found[step.inputs[0]] for step in steps if wiring.ties[step.name] == first]
            parts = [s[: self.known] for s in sums] + [s[self.known :] for s in sums]
            self.sums[first] = torch.cat(parts)
        for operation in operations:
            node = self.network.node(operation.name)
            if isinstance(operation, ir.LookUp) and isinstance(node, LookUp) and operation.name in self.sums:
                seen = self.sums[operation.name]
                fit_results(
                    node, operation, seen[: len(seen) // len(image.x) * self.known], **self._kinds(operation.name)
                )
        for operation in operations:
            if isinstance(operation, ir.Add) and operation.name in wiring.ties:
                self._least_of_terms(operation)

    def _least_of_terms(self, operation: ir.Add) -> None:
        """What is known of the unit of a tied sum before any step is computed: the least of its terms'."""
        ties = self.network.wiring.ties
        first = ties[operation.name]
        for term in operation.inputs:
            node = self.network.node(term) if term != IMAGE else None
            unit = self.least.get(ties.get(term, ""))
            if isinstance(node, LookUp) and term in ties:
                unit = node.unit
            if unit is not None:
                self.least[first] = torch.minimum(self.least.get(first, unit), unit)

    def _kinds(self, name: str) -> dict[str, bool]:
        """What is asked of the units of an activation's results."""
        return {"uniform": name in self.network.wiring.uniform, "power": name in self.network.wiring.powers}

    def _compare(
        self, step: Step, node: nn.Module, operation: ir.Operation, inputs: list[_Value], value: _Value
    ) -> None:
        """Holds one step, on the module's own values of its inputs, against the module's value of its result."""
        integers = [
            (self.exact[name] - per_channel(v.shift, v.x)) / per_channel(v.unit, v.x)
            for name, v in zip(step.inputs, inputs, strict=True)
        ]
        if isinstance(node, Activation):
            found = node(integers[0], self.drives.turns(step, node, float(node.drive)), 0.0, 0.0)
        elif isinstance(operation, ir.MaxPool2d):
            found = functional.max_pool2d(integers[0], *_window(operation))
        elif isinstance(node, Head):
            found = node.sums(integers[0])
        else:
            found = node(*integers)
        real = value.real(found)
        expected = self.truth.get(operation.computes or "")
        if expected is None and isinstance(operation, ir.ReLU):  # it was moved: the module has no such value
            expected = self.exact[step.inputs[0]].clamp(operation.low, operation.high)
        if isinstance(operation, ir.CReLU):  # no step of the module gives both side by side
            sums = self.exact[step.inputs[0]]
            expected = side_by_side(sums, -sums).clamp(0, operation.high)
        if expected is None and isinstance(operation, ir.LookUp):
            expected = operation.function(self.exact[step.inputs[0]])
        if expected is None:
            self.exact[step.name] = real
            return
        if isinstance(node, ReLU):  # it clips by design where the ramp ends
            low = (value.unit * node.lowest).clamp_min(operation.low if isinstance(operation, ir.ReLU) else 0.0)
            real, clipped = (_clipped(x, low, value.unit * node.levels) for x in (real, expected))
            require_same(operation, real, clipped)
        elif isinstance(node, LookUp):
            turns = self.drives.turns(step, node, float(node.drive))
            compared = comparable(node, self.exact[step.inputs[0]], expected, turns)
            require_same(operation, real * compared, expected * compared)
        else:
            terms = [float(self.exact[name].abs().max()) for name in step.inputs if isinstance(node, Add)]
            require_same(operation, real, expected, beside=max(terms, default=0.0))
            if isinstance(node, Head):
                require_same_outputs(operation, real, expected)
                require_heard(operation.place, value.real(value.x[: len(expected)]), expected, CLIPPING)
        self.exact[step.name] = expected

    def _value(self, step: Step, node: nn.Module, operation: ir.Operation) -> _Value:
        inputs = [self.values[name] for name in step.inputs]
        first = inputs[0]
        match node, operation:
            case ShiftConv2d() | ShiftLinear() | Head(), ir.Conv2d() | ir.Linear():
                return self._linear(step, node, operation, first)
            case Activation(), ir.Activation() if node.tied:
                return self._tied_activation(step, node, operation, first)
            case Activation(), ir.Activation():
                return self._activation(step, node, operation, first)
            case Add(), _:
                return self._sum(step, node, inputs)
            case _, ir.Affine():
                return _Value(
                    x=first.x, unit=first.unit * operation.scale, shift=first.shift * operation.scale + operation.shift
                )
            case _, ir.MaxPool2d():
                self.drives.watch(step, first.x, *_window(operation))
                return _Value(x=functional.max_pool2d(first.x, *_window(operation)), unit=first.unit, shift=first.shift)
            case _, ir.AvgPool2d():
                size = operation.kernel[0] * operation.kernel[1]
                return _Value(x=node(first.x), unit=first.unit / size, shift=first.shift)
            case _, ir.Flatten():
                each = first.x[0].numel() // len(first.unit)
                unit, shift = (values.repeat_interleave(each) for values in (first.unit, first.shift))
                return _Value(x=node(first.x), unit=unit, shift=shift)
            case _, ir.ChannelShuffle():
                unit, shift = (node(values.view(1, -1, 1, 1)).flatten() for values in (first.unit, first.shift))
                return _Value(x=node(first.x), unit=unit, shift=shift)
            case _, ir.Reshape() | ir.Gather():
                wiring = self.network.wiring
                units, shifts = [v.unit for v in inputs], [v.shift for v in inputs]
                if step.name in wiring.mixing and not (_equal(units) and _equal(shifts)):
                    raise UnsupportedLayerError(
                        f"{step.place}: mixes the values of several channels, which have scales or biases of their own; "
                        "put the activation (nn.ReLU) before this step"
                    )
                unit, shift = (wiring.by_channel(values, step) for values in (units, shifts))
                return _Value(x=node(*[v.x for v in inputs]), unit=unit, shift=shift)
            case _, ir.Concat():
                unit, shift = torch.cat([v.unit for v in inputs]), torch.cat([v.shift for v in inputs])
                return _Value(x=node(*[v.x for v in inputs]), unit=unit, shift=shift)
        raise AssertionError(f"{step.name} is a {type(node).__name__} for a {type(operation).__name__}")

    def _linear(
        self, step: Step, node: ShiftConv2d | ShiftLinear | Head, operation: ir.Conv2d | ir.Linear, source: _Value
    ) -> _Value:
        linear = node.linear if isinstance(node, Head) else node
        gain = source.unit.abs().mean()
        first = self.network.wiring.ties.get(step.name, "")
        per_group = _per_group(source.unit / gain, operation)
        if isinstance(node, Head):
            node.take(operation.weight * per_group)
        elif first not in self.done:
            linear.weight.copy_(operation.weight * per_group)
        # Without padding, which is refused where there is a shift, a constant in the input is a constant in every sum.
        moved = (operation.weight * _per_group(source.shift, operation)).flatten(1).sum(1)
        bias = operation.bias + moved
        if isinstance(node, Head):
            node.gain.copy_(gain)
            node.bias.copy_(bias)
            x = node.sums(source.x)
            node.peak.copy_(x[: self.known].abs().max())
            return _Value(x=x, unit=node.logit(), shift=torch.zeros_like(bias))
        look_up = self._look_up_of(step)
        if first and look_up:
            return self._tied_linear(step, linear, source, look_up, gain, bias)
        if first not in self.done:
            self._scale(step, linear, source, gain, bias)
        if first:
            self.done.add(first)
        x = linear(source.x)
        self.spread[step.name] = deviation(x[: self.known])
        reference = linear.reference
        unit = (linear.scale().flatten() if reference is None else reference) * gain
        return _Value(x=x, unit=unit.expand(len(bias)), shift=bias)

    def _scale(self, step: Step, linear: ShiftConv2d | ShiftLinear, source: _Value, gain: Tensor, bias: Tensor) -> None:
        """Chooses the unit of a layer's sums; of tied ones by the weights alone, since the first step is like no other."""
        wiring, tied = self.network.wiring, step.name in self.network.wiring.ties
        peak = linear.weight.detach().flatten(1).abs().amax(1)
        if tied and taps(linear.weight) and bool(peak.max() > 0):
            # Each is exact in a unit of its own; one below a 32nd of the greatest is 0, or its channel would need a range of its own.
            linear.widen(peak.clamp_min(peak.max() / SMALL) / linear.scale().flatten())
        if step.name in wiring.powers:
            unit = 2.0 ** torch.log2(linear.scale().flatten() * gain).round()
            linear.refer_to((unit / gain).expand(len(bias)))
        elif not tied and step.name not in wiring.uniform:
            self._scale_down_constants(linear, linear(source.x)[: self.known], linear.scale().flatten() * gain, bias)

    def _tied_linear(
        self,
        step: Step,
        linear: ShiftConv2d | ShiftLinear,
        source: _Value,
        look_up: str,
        gain: Tensor,
        bias: Tensor,
    ) -> _Value:
        """Sums of one step in the unit of all steps: that of the first layer that feeds the activation, which refers to itself."""
        wiring = self.network.wiring
        own = (linear.scale().flatten() * gain).expand(len(bias))
        unit = self.units.setdefault(wiring.ties[look_up], own)
        first = wiring.ties[step.name]
        if first not in self.done:
            self.done.add(first)
            linear.refer_to(unit / gain)
        x = linear(source.x)
        self.spread[step.name] = deviation(x[: self.known])
        return _Value(x=x, unit=unit, shift=bias)

    def _look_up_of(self, step: Step) -> str | None:
        """The tied activation that a linear layer is for alone: it is read by that, or by a sum of such layers."""
        wiring = self.network.wiring
        for _ in range(2):
            readers = [s for s in wiring.steps if step.name in s.inputs]
            if len(readers) != 1:
                return None
            (step,) = readers
            if issubclass(step.kind, ir.Activation):
                return step.name if step.name in wiring.ties else None
            if not issubclass(step.kind, ir.Add) or step.name in wiring.ties:
                return None
        return None

    def _scale_down_constants(self, linear: ShiftConv2d | ShiftLinear, x: Tensor, unit: Tensor, bias: Tensor) -> None:
        """Channels that hardly vary beside their mean get a coarser unit, so that the mean has room on the torus.

        A pruned filter that has kept its bias is such a channel: without weights its unit would be next to nothing.
        """
        spread, unit = deviation(x), unit.expand(len(bias))
        center = x.mean([0, *range(2, x.dim())]) * unit + bias
        alive = linear.weight.flatten(1).abs().amax(1) > ROUNDING * linear.weight.abs().max()
        typical = spread[alive].pow(2).mean().sqrt() if bool(alive.any()) else torch.ones(())
        distance = center / unit / typical
        factors = torch.where(distance > FAR, distance / NEAR, torch.ones(()))
        # A dead channel that stays at or below zero needs no room, but a unit of the others' size keeps its numbers small.
        factors = torch.where(~alive & (distance <= FAR), (center.abs() / unit / typical).clamp_min(1.0), factors)
        if bool((factors > 1).any()):
            linear.widen(factors)

    def _sum(self, step: Step, node: Add, inputs: list[_Value]) -> _Value:
        """Brings all terms to one unit: free terms take it as their reference, the others are powers of two times it."""
        wiring = self.network.wiring
        free = [wiring.free(step, name) for name in step.inputs]
        fixed = [value.unit for value, is_free in zip(inputs, free, strict=True) if not is_free]
        if step.name in wiring.ties and wiring.ties[step.name] in self.least:
            fixed.append(self.least[wiring.ties[step.name]])
        nodes = [self.network.node(name) if name != IMAGE else None for name in step.inputs]
        given = [
            value.unit for value, n in zip(inputs, nodes, strict=True) if getattr(n, "reference", None) is not None
        ]
        unit = torch.stack(fixed).amin(0) if fixed else (given or [inputs[0].unit])[0]
        if step.name in wiring.uniform:
            unit = unit.min().expand_as(unit)
        shift = torch.stack([value.shift for value in inputs]).sum(0)
        terms = []
        for term, (name, value, is_free) in enumerate(zip(step.inputs, inputs, free, strict=True)):
            if is_free:
                linear = self.network.node(name)
                assert isinstance(linear, ShiftWeights), "free terms are linear layers"
                if linear.reference is None:
                    linear.refer_to(unit * linear.scale().flatten() / value.unit)
                elif not torch.allclose(value.unit, unit, rtol=ROUNDING):  # a tied one has that of its first step
                    raise NotEquivalentError(
                        f"{step.place}: the layer {name!r} is one at several steps, and sums {step.name!r} have other units at this one; "
                        "a fault of the conversion, not of the network: write the step in another way, and report it"
                    )
                terms.append(value.x * per_channel(value.unit / unit, value.x))
            else:
                node.factors[term] = torch.log2(value.unit / unit).round()
                terms.append(value.x * per_channel(2.0 ** node.factors[term], value.x))
        for number, is_free in enumerate(free):
            if is_free:  # from now on its sums are in units of the reference
                inputs[number].unit = unit
        x = torch.stack(terms).sum(0)
        self.spread[step.name] = deviation(x[: self.known])
        return _Value(x=x, unit=unit, shift=shift)

    def _statistics(self, step: Step, node: Activation, source: _Value) -> None:
        known = source.x[: self.known]
        owner = None if node.tied else self.network.wiring.owner[step.name]
        node.mean.copy_(known.mean([0, *range(2, known.dim())]))
        node.std.copy_(deviation(known))
        node.spread.copy_(self.spread[owner] if owner else node.std)
        node.offset.copy_((node.mean + source.shift / source.unit) / node.std)

    def _activation(self, step: Step, node: Activation, operation: ir.Activation, source: _Value) -> _Value:
        if isinstance(node, ReLU) and isinstance(operation, ir.ReLU | ir.CReLU):
            return self._ramp(step, node, operation, source)
        assert isinstance(node, LookUp) and isinstance(operation, ir.LookUp), "an activation is a ramp or a function"
        return self._function(step, node, operation, source)

    def _tied_activation(self, step: Step, node: Activation, operation: ir.Activation, source: _Value) -> _Value:
        """At the first step, set by the sums of all of them."""
        first = self.network.wiring.ties[step.name]
        if first not in self.done:
            self.done.add(first)
            known, sums = self.known, self.sums.pop(first)
            self.known = self.drives.known = known * (len(sums) // len(source.x))
            x = (sums - per_channel(source.shift, sums)) / per_channel(source.unit, sums)
            self.results[first] = self._activation(
                step, node, operation, _Value(x=x, unit=source.unit, shift=source.shift)
            ).unit
            self.known = self.drives.known = known
        unit = self.results[first]
        x = node(source.x, self.drives.turns(step, node, float(node.drive)), 0.0, 0.0)
        return _Value(x=x, unit=unit, shift=torch.zeros_like(unit))

    def _function(self, step: Step, node: LookUp, operation: ir.LookUp, source: _Value) -> _Value:
        real = source.real(source.x)
        self._statistics(step, node, source)
        node.gain.copy_(source.unit * node.std)
        known = real[: self.known]
        if not node.tied:
            fit_results(node, operation, known, **self._kinds(step.name))
        fit_ramp(node, operation, known)
        self.drives.choose(step, node, source.x)
        x = node(source.x, self.drives.turns(step, node, float(node.drive)), 0.0, 0.0)
        return _Value(x=x, unit=node.unit.clone(), shift=torch.zeros_like(node.unit))

    def _ramp(self, step: Step, node: ReLU, operation: ir.ReLU | ir.CReLU, source: _Value) -> _Value:
        wiring, slope = self.network.wiring, source.unit
        real = source.real(source.x)
        both = side_by_side(real, -real) if isinstance(node, CReLU) else real
        self._statistics(step, node, source)
        if operation.high is not None:
            top = torch.full_like(slope, operation.high)
        else:
            positive = both[: self.known].clamp_min(0).transpose(0, 1).reshape(len(slope), -1)
            some = _sample(positive)
            rare = torch.nanquantile(some.where(some > 0, torch.nan), RARE_CLIPPED, dim=1).nan_to_num(0.0)
            top = torch.maximum(torch.quantile(some, CLIPPED, dim=1), rare)
            top = torch.maximum(top, slope * node.std * 0.5)  # a channel that is hardly ever positive
        if step.name in wiring.uniform:
            top = top.max().expand_as(top)
        if step.name in wiring.powers:
            top = 2.0 ** torch.log2(top).ceil()
        node.top.copy_(top / (slope * node.std))
        node.floor.copy_(torch.minimum(node.floor, node.top))  # a module that clips within a fraction of a deviation
        self.drives.choose(step, node, source.x)
        turns = self.drives.turns(step, node, float(node.drive))
        reached = node.tops(turns) * slope * node.std
        if step.name in wiring.uniform:
            reached = reached.min().expand_as(reached)
        if step.name in wiring.powers:
            # Only a ramp that the window really shortened goes to the next lower power of two: without the tolerance the last bit of a
            # float sum would halve a ramp that fits.
            shortened = reached < top * (1 - ROUNDING)
            reached = torch.where(shortened, 2.0 ** torch.log2(reached).floor(), top)
        # What reads the results counts on this unit, wherever the sums will lie on the torus.
        node.top.copy_(reached / (slope * node.std))
        unit = (reached / node.levels).repeat_interleave(both.shape[1] // real.shape[1])
        return _Value(
            x=torch.clamp(both / per_channel(unit, both), node.lowest, node.levels),
            unit=unit,
            shift=torch.zeros_like(unit),
        )


def _equal(values: list[Tensor]) -> bool:
    """Whether all numbers are the same, up to rounding."""
    whole = torch.cat(values)
    return bool((whole - whole[0]).abs().max() <= ROUNDING * whole.abs().max())


def _clipped(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, per_channel(low, x)), per_channel(high, x))


def _per_group(values: Tensor, operation: ir.Conv2d | ir.Linear) -> Tensor:
    """Numbers [I] of the input channels in a shape that broadcasts over the weights [O, I / groups, ...]."""
    groups = operation.groups if isinstance(operation, ir.Conv2d) else 1
    own = values.view(groups, -1).repeat_interleave(len(operation.weight) // groups, dim=0)
    return own.view(*own.shape, *[1] * (operation.weight.dim() - 2))


def _window(pool: ir.MaxPool2d) -> tuple[ir.Pair, ir.Pair, ir.Pair]:
    return pool.kernel, pool.stride, pool.padding


def _sample(values: Tensor, limit: int = 100_000) -> Tensor:
    """At most ``limit`` of each row's values, evenly spread: enough for a quantile."""
    return values[:, :: max(1, values.shape[1] // limit)]
