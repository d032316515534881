"""A trainable network of shift-linear layers and look-ups, built from operations (models.compiler.ir) as they are simplified."""

from collections.abc import Callable, Iterator
from math import prod
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ciphershift.errors import BadShapeError
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.layers import Shape
from ciphershift.he_layers.program import IMAGE
from ciphershift.he_layers.simulate import CircuitNoise
from ciphershift.he_layers.stem import Stem
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.graph import Step, Wiring
from ciphershift.models.compiler.inputs import Inputs
from ciphershift.models.compiler.scales import Torus, place
from ciphershift.models.nn.activations import Activation, CReLU, LookUp, ReLU, per_channel
from ciphershift.models.nn.layers import Add, AvgPool2d, Concat, Gather, Head, MaxPool2d
from ciphershift.models.nn.lookup import with_noise
from ciphershift.models.nn.recurrent import LIMIT, contracted
from ciphershift.models.nn.shift import ShiftConv2d, ShiftLinear, ShiftWeights
from ciphershift.protocol.outputs import Part

Node = TypeVar("Node", bound=nn.Module)
SMALL_STEP = 0.99
"""Factor by which weights shrink at least: rounded weights do not follow a smaller step."""


class Network(nn.Module):
    """Nodes in order, each after its inputs; the last one gives the logits.

    Attributes:
        input_shape: (C, H, W) of an image.
        levels: greatest integer of an activation.
        exponents: powers of two that a weight may take.
        inputs: what its integers stand for.
        parts: what it returns, one output or several (protocol.outputs).
        wiring: which node reads which.
        stem: the public part of the module that this network is the rest of: the inputs here are what it gives, from 0 to 1.
        public_part: makes that part in torch for so many images at a time, if there is one (models.compiler.public.PublicPart).
        params: name of the parameter set that it is made for.
        noise: of the circuit, injected if there is any.
        loudness: factor of that noise, 1 except in training.
        placed: where the values lie, if that is held (see ``place``).
        contractive: whether training keeps the recurrent layers so (see ``contract``).
        state_weights: by recurrent layer that is contractive in the module's units and not in levels: the module's value of one level of
            each state, divided by the greatest, [states] (he_layers.recurrence).
    """

    loudness: Tensor
    lowest: Tensor

    with_noise = staticmethod(with_noise)

    def __init__(
        self,
        operations: list[ir.Operation],
        input_shape: Shape,
        *,
        levels: int = 31,
        exponents: int = 4,
        inputs: Inputs | None = None,
        parts: tuple[Part, ...] = (),
        ties: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.input_shape, self.levels, self.exponents = input_shape, levels, exponents
        self.inputs = Inputs() if inputs is None else inputs
        self.wiring = Wiring(operations, input_shape, ties, self.inputs.levels)
        self._bounds = None if ir.has_lookups(operations) else self.inputs.bounds(input_shape)
        self.parts = parts or (Part(name="", shape=operations[-1].shape),)
        self.stem: Stem | None = None
        self.public_part: Callable[[int], nn.Module] | None = None
        self.params = parameter_sets.DEFAULT
        self.noise: CircuitNoise | None = None
        self.placed: Torus | None = None
        self.contractive = False
        self.state_weights: dict[str, Tensor] = {}
        self.register_buffer("loudness", torch.ones(()), persistent=False)
        self.register_buffer("lowest", self.inputs.lowest(input_shape[0]), persistent=False)
        nodes: dict[str, nn.Module] = {}
        for operation in operations:
            one = nodes.get(self.wiring.ties.get(operation.name, ""))
            if one is None or isinstance(one, Add):  # a sum may have fewer terms at some steps
                one = self._node(operation, operation is operations[-1])
            nodes[operation.name] = one
            if isinstance(node := nodes[operation.name], Activation):
                node.tied = operation.name in self.wiring.ties
                node.uniform = operation.name in self.wiring.uniform
        self._nodes = nn.ModuleList(nodes.values())
        first = [nodes[name] for name, one in self.wiring.ties.items() if name == one]
        self._tied_weights = [node for node in first if isinstance(node, ShiftWeights)]
        self._by_name = {name: place for place, name in enumerate(nodes)}
        self._recurrent = self.wiring.recurrent
        self._served = {owner: name for name, owner in self.wiring.owner.items() if owner}

    def _node(self, o: ir.Operation, last: bool) -> nn.Module:
        match o:
            case ir.Conv2d():
                maps, inputs, *kernel = o.weight.shape
                options: dict[str, Any] = {
                    "stride": o.stride,
                    "padding": o.padding,
                    "groups": o.groups,
                    "exponents": self.exponents,
                    "per_channel": o.name not in self.wiring.uniform,
                }
                return ShiftConv2d(inputs * o.groups, maps, (kernel[0], kernel[1]), **options)
            case ir.Linear() if last:
                sizes = tuple(prod(part.shape) for part in self.parts)
                return Head(o.weight.shape[1], sizes, exponents=self.exponents, mask=o.mask, bounds=self._bounds)
            case ir.Linear():
                own = o.name not in self.wiring.uniform
                return ShiftLinear(o.weight.shape[1], o.weight.shape[0], exponents=self.exponents, per_channel=own)
            case ir.ReLU():
                lowest, levels = ramp_levels(o, self.levels)
                return ReLU(o.shape[0], levels=levels, lowest=lowest)
            case ir.CReLU():
                return CReLU(o.shape[0] // 2, levels=self.levels)
            case ir.LookUp():
                return LookUp(o.shape[0], o.function, levels=self.levels)
            case ir.MaxPool2d():
                return MaxPool2d(o.kernel, o.stride, o.padding)
            case ir.AvgPool2d():
                return AvgPool2d(o.kernel, o.stride, o.padding)
            case ir.Flatten():
                return nn.Flatten()
            case ir.Affine():
                return nn.Identity()
            case ir.Reshape():
                return Gather(o.shape, None)
            case ir.Gather():
                return Gather(o.shape, o.index)
            case ir.Add():
                return Add(len(o.inputs), o.shape[0])
            case ir.Concat():
                return Concat()
            case ir.ChannelShuffle():
                return nn.ChannelShuffle(o.groups)
        raise AssertionError(f"{o.name} is no operation that is left after models.compiler.simplify")

    @property
    def output(self) -> str | None:
        """What the client does to the logits of an only output (protocol.outputs)."""
        return self.parts[0].function if len(self.parts) == 1 else None

    def require_logits(self) -> None:
        """Raises BadShapeError unless there is one output, a vector: what labels are for."""
        if len(self.parts) > 1 or len(self.parts[0].shape) > 1:
            given = ", ".join(f"{part.name or 'one'} {part.shape}" for part in self.parts)
            raise BadShapeError(
                f"the network returns {given}, and labels are for one vector of logits: train it in a loop of your own, whose loss "
                "takes network(x), the values of all outputs one after the other"
            )

    @property
    def head(self) -> Head:
        """The last node."""
        head = self._nodes[-1]
        assert isinstance(head, Head), "the last operation is dense"
        return head

    def steps(self) -> Iterator[tuple[Step, nn.Module]]:
        """Every step with its node, in order."""
        return zip(self.wiring.steps, self._nodes, strict=True)

    def of_type(self, kind: type[Node]) -> Iterator[Node]:
        """All parts of one type."""
        return (module for module in self.modules() if isinstance(module, kind))

    def steps_of(self, samples: Tensor) -> Tensor:
        """Samples as the module takes them as steps above each feature's least value."""
        unit, zero = self.inputs.scale(samples.shape[1])
        return (samples - per_channel(zero, samples)) / per_channel(unit, samples) - per_channel(self.lowest, samples)

    def torus(self) -> Torus:
        """Where the values lie on the torus, by the statistics of the moment."""
        with torch.no_grad():
            return place(self.wiring, {step.name: node for step, node in self.steps()})

    def place(self) -> None:
        """Hold the places of the moment until this is called again, in memory that stays: a captured graph can neither branch nor wait."""
        if self.placed is None:
            self.placed = self.torus()
        else:
            self.placed.take(self.torus())

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1], or of other data bytes / 255 (Inputs.bytes_of) -> all values of ``parts`` [B, values]."""
        torus = self.placed or self.torus()
        for weights in self._tied_weights:
            weights.hold(True)
        values = {IMAGE: self.fresh(self.inputs.integers(x) + per_channel(self.lowest, x), torus)}
        for step, node in self.steps():
            inputs = [values[name] for name in step.inputs]
            for name in {name for name in step.inputs if self.wiring.last_use[name] == step.name}:
                del values[name]
            values[step.name] = self.evaluate(step, node, inputs, torus)
        for activation in self.of_type(Activation):
            activation.settle()
        for weights in self._tied_weights:
            weights.hold(False)
        return values[self.wiring.steps[-1].name]

    def evaluate(self, step: Step, node: nn.Module, inputs: list[Tensor], torus: Torus) -> Tensor:
        """One step."""
        source = step.inputs[0]
        if isinstance(node, Activation):
            if self.wiring.owner[step.name] is None:
                node.track_spread(inputs[0])
            std = self._loud(self.noise.lookup_input(*self.wiring.keys[source])) if self.noise else 0.0
            result_std = self._loud(self.noise.lookup) / torus.delta[step.name] if self.noise else 0.0
            return torch.as_tensor(node(inputs[0], torus.turns(source), std, result_std))
        if isinstance(node, MaxPool2d):
            under_input, under_big = self.wiring.keys[source]
            stds = (
                (
                    self._loud(self.noise.lookup_input(under_input, under_big)),
                    self._loud(self.noise.lookup_input(under_input, True)),
                )
                if self.noise
                else (0.0, 0.0)
            )
            return torch.as_tensor(node(inputs[0], torus.turns(source), *stds))
        if isinstance(node, Head):
            std = self._loud(self.noise.packing) / torus.delta[step.name] if self.noise else 0.0
            return torch.as_tensor(node(inputs[0], std))
        result = torch.as_tensor(node(*inputs))
        if step.name in self._served:
            tracking = self.node(self._served[step.name])
            assert isinstance(tracking, Activation), "only activations own sums"
            tracking.track_spread(result)
        return result

    def node(self, name: str) -> nn.Module:
        """The node of a step."""
        return self._nodes[self._by_name[name]]

    def fresh(self, x: Tensor, torus: Torus) -> Tensor:
        """Levels as they come from the client."""
        if self.noise is None:
            return x
        add = self.with_noise if self.training else with_noise
        return add(x, self._loud(self.noise.fresh) / torus.delta[IMAGE])

    def _loud(self, std: float) -> Tensor | float:
        """A deviation of the circuit's noise, in turns, as loud as it is at the moment."""
        return self.loudness * std if std else 0.0

    def quantize(self, on: bool) -> None:
        """Use integer weights and integer activations from now on (or real ones again)."""
        for weights in self.of_type(ShiftWeights):
            weights.quantized = on
        for activation in self.of_type(Activation):
            activation.quantized = on

    def fuse(self) -> None:
        """Compute the chains of small steps around each look-up at once: training large feature maps becomes about twice as fast.

        On a processor they are compiled, which needs a C++ compiler, and is worth it from some hundred thousand values a batch on, since
        it takes a minute. On a GPU they are the kernels of models.nn.fused.
        """
        if self.loudness.is_cuda:
            from ciphershift.models.nn import fused  # needs Triton, which comes with torch for GPUs

            self.use_kernels(fused)
            return
        torch._dynamo.config.recompile_limit = 64  # one for each shape, of which a network has few
        torch._inductor.config.fallback_random = True  # the same noise as without
        for activation in self.of_type(ReLU):
            activation.look_up = torch.compile(activation.look_up)
            activation.moments = torch.compile(activation.moments)
            activation.with_noise = torch.compile(activation.with_noise)
        for pool in self.of_type(MaxPool2d):
            pool.tree = torch.compile(pool.tree)
        self.with_noise = torch.compile(self.with_noise)

    def use_kernels(self, kernels: ModuleType) -> None:
        """Look values up by models.nn.fused from now on, in training."""
        for activation in self.of_type(ReLU):
            activation.kernels, activation.moments = kernels, kernels.moments
        for pool in self.of_type(MaxPool2d):
            pool.kernels = kernels

    def gains(self) -> dict[str, Tensor]:
        """By recurrent layer: what each state adds to each state one step later, at most; [sums, states].

        In levels for a level, or in those of states times their ``state_weights``.
        """
        return {name: slope * weights.unit_weight().detach() for name, weights, slope in self._recurrences()}

    def _recurrences(self) -> Iterator[tuple[str, ShiftWeights, Tensor]]:
        """By recurrent layer: its weights, and what one of their units adds to ``gains``, [sums, states]."""
        torus = self.placed or self.torus()
        for name, activation in self._recurrent.items():
            weights, table = self.node(name), self.node(activation)
            assert isinstance(weights, ShiftWeights) and isinstance(table, ReLU | LookUp), (
                "a recurrent layer is one of these"
            )
            slope = table.slope(torus.turns(self.wiring.by_name[activation].inputs[0])).detach()
            slope = slope.view(-1, 1).expand_as(weights.weight)
            yield name, weights, weighted(slope, self.state_weights[name]) if name in self.state_weights else slope

    def contract(self, *, last: bool = False) -> bool:
        """A step towards ``gains`` of spectral norm LIMIT at most, if the module's were below one; whether they are there.

        The step shrinks a whole matrix, which always ends there. One with ``state_weights`` moves as the nearest matrix of that norm lies
        from the rounded one: it keeps what does not add to the norm, but rounded weights need not follow. ``last`` shrinks it, too.
        """
        if not self.contractive:
            return True
        there = True
        for name, weights, slope in self._recurrences():
            gain = slope * weights.unit_weight().detach()
            norm = float(torch.linalg.matrix_norm(gain, 2))
            if norm <= LIMIT:
                continue
            there = False
            with torch.no_grad():
                if last or name not in self.state_weights:
                    weights.weight.mul_(min(LIMIT / norm, SMALL_STEP))
                else:
                    units = torch.where(slope > 0, (gain - contracted(gain, LIMIT)) / slope, 0.0)
                    weights.weight.sub_(units * weights.sum_unit().view(-1, 1))
        return there

    @property
    def frozen(self) -> bool:
        """Whether statistics stand still."""
        return self.head.frozen

    def freeze(self, on: bool) -> None:
        """Stop tracking statistics: the network becomes the one that will be exported."""
        for activation in self.of_type(Activation):
            activation.frozen = on
        for weights in self.of_type(ShiftWeights):
            if weights.clip is not None:
                weights.clip.requires_grad_(not on)
        self.head.frozen = on

    def learn_clips(self, on: bool) -> None:
        """Learn the scales of the weights, which say where weights are clipped, or keep what was learned (models.nn.shift).

        Keep it before the network is exported.
        """
        for weights in self.of_type(ShiftWeights):
            weights.learn_clip(on)


def weighted(gain: Tensor, weights: Tensor) -> Tensor:
    """D G D^-1 with weights [states] of [sums, states], as he_layers.recurrence has it."""
    weights = weights.to(gain)
    return gain * (weights.view(len(gain), -1).amax(1, keepdim=True) / weights)


def ramp_levels(ramp: ir.ReLU, levels: int) -> tuple[int, int]:
    """Least and greatest integer of an activation with ``levels`` steps, so that zero is one of them."""
    if ramp.high is None or ramp.low == 0:
        return 0, levels
    above = max(1, round(levels * ramp.high / (ramp.high - ramp.low)))
    return -max(1, round(-ramp.low * above / ramp.high)), above
