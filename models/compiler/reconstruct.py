"""Rounding, step by step on the calibration data.

Each step sees what the rounded and noisy steps before it give, and comes as near to the float network's sums as it can (layer-wise
reconstruction: Nagel et al. 2020, arXiv 2004.10568; Li et al. 2021, arXiv 2102.05426).
"""

from copy import deepcopy
from math import prod

import torch
from torch import Tensor, nn

from ciphershift.errors import NotEquivalentError
from ciphershift.he_layers.program import IMAGE
from ciphershift.he_layers.simulate import CircuitNoise
from ciphershift.models.compiler import rounding
from ciphershift.models.compiler.drives import Drives
from ciphershift.models.compiler.graph import Step
from ciphershift.models.compiler.network import Network
from ciphershift.models.nn.activations import Activation, LookUp, ReLU, deviation, per_channel
from ciphershift.models.nn.layers import Head, MaxPool2d
from ciphershift.models.nn.shift import ShiftConv2d, ShiftLinear, ShiftWeights

LEAST_SPREAD = 2.0
"""Of an output without look-ups on the calibration data, in deviations of an answer's noise; behind look-ups it is one."""
NOISE_RAMP = 4.0
"""Standard deviations to both sides, on the ramp of a channel that is constant in the module."""
STILL = 1e-6
"""Variance, in units of the sums, below which a channel is constant."""


class Reconstruction:
    """Rounds a calibrated network; afterwards it is quantized and has the circuit's noise.

    Weights are chosen by ``rounding``. Each activation then follows the sums that it really gets: scale and offset of every channel are
    those by which they are nearest to the float sums, which corrects the mean (Nagel et al. 2019, arXiv 1906.04721, section 4.2); its
    function stays where it is in the module's values. Channels have scales of their own, so they are equal in size from the start.
    """

    def __init__(self, network: Network, noise: CircuitNoise, drives: Drives) -> None:
        """Prepare.

        Args:
            network: calibrated, in evaluation mode, not quantized.
            noise: of the circuit.
            drives: chooses how far sums reach on the torus.
        """
        self.network, self.noise, self.drives, self.known = network, noise, drives, drives.known
        self.clear: dict[str, Tensor] = {}
        self.noisy: dict[str, Tensor] = {}
        self.spread: dict[str, Tensor] = {}

    def run(self, integers: Tensor) -> tuple[Tensor, Tensor]:
        """Goes through the steps in order; returns the outputs for the calibration data, [B, outputs], and those before rounding.

        Args:
            integers: the network's inputs, those from elsewhere last.
        """
        network = self.network
        before = network.torus()
        network.quantize(True)
        torus = network.torus()
        network.noise = self.noise
        self.clear[IMAGE], self.noisy[IMAGE] = integers[: self.known], network.fresh(integers, before)
        for step, node in network.steps():
            own = _unrounded(node)
            given = [self.noisy[name] for name in step.inputs]
            network.noise = None
            wanted = network.evaluate(step, own, [self.clear[name] for name in step.inputs], before)
            network.noise = self.noise
            if isinstance(node, MaxPool2d):
                self.drives.watch(step, given[0], node.kernel, node.stride, node.padding)
            # What is tied is set for all of its steps: what one of them sees must not change the others.
            elif (
                isinstance(node, ShiftConv2d | ShiftLinear | Head | Activation) and step.name not in network.wiring.ties
            ):
                self._settle(step, node, given[0], wanted)
                torus = network.torus()
            self.clear[step.name] = wanted
            self.noisy[step.name] = network.evaluate(step, node, given, torus)
            if step.name in network.wiring.owner.values():
                self.spread[step.name] = deviation(self.noisy[step.name][: self.known])
            for name in set(step.inputs):
                if network.wiring.last_use[name] == step.name:
                    del self.clear[name], self.noisy[name]
        last = network.wiring.steps[-1].name
        return self.noisy[last][: self.known], self.clear[last]

    def _settle(
        self, step: Step, node: ShiftConv2d | ShiftLinear | Head | Activation, x: Tensor, wanted: Tensor
    ) -> None:
        """Rounds weights, or sets what an answer or an activation tells of the sums ``x`` that it gets."""
        if isinstance(node, Activation):
            self._follow(step, node, x, self.clear[step.inputs[0]])
        elif isinstance(node, Head):
            self._answer(step, node, x[: self.known], wanted)
        else:
            self._round(node, x[: self.known], wanted)

    def _round(self, layer: ShiftConv2d | ShiftLinear, x: Tensor, wanted: Tensor) -> None:
        if rounding.fits(layer):
            rounding.choose(layer, rounding.moments(layer, x, wanted))

    def _answer(self, step: Step, node: Head, x: Tensor, wanted: Tensor) -> None:
        if node.bounds is None:
            self._round(node.linear, x, (wanted - node.bias) / node.logit())
        node.bias.copy_((wanted - node.linear(x) * node.logit()).mean(0))
        node.peak.copy_(node.sums(x).abs().max())
        self._require_heard(step, node, wanted)

    def _require_heard(self, step: Step, node: Head, wanted: Tensor) -> None:
        """All outputs of a part share a scale: beside a great constant, or a greater output, one may be less than the noise of an answer.

        Without look-ups the scale is that of the greatest sum of any input. Behind look-ups a constant is no matter, since its noise is
        small beside the others; nor is a place of a map, such as one in its padding.
        """
        dense = node.bounds is not None
        read = self.noise.fresh if dense else self.noise.lookup
        turns = self.noise.packing**2 + read**2 * node.linear.integer_weight().pow(2).sum(1)
        noise = turns**0.5 / float(self.network.torus().delta[step.name]) * node.logit()
        spread = wanted.std(0)
        share = noise / spread.clamp_min(1e-30)
        if not dense:
            vectors = [torch.full((prod(part.shape),), len(part.shape) == 1) for part in self.network.parts]
            share = torch.where((spread > STILL * wanted.abs().amax(0)) & torch.cat(vectors), share, 0.0)
        most = 1 / LEAST_SPREAD if dense else 1.0
        if float(share.max()) > most:
            constant = wanted.abs().amax(0) / spread.clamp_min(1e-30)
            worst = int(torch.where(share > most, constant, 0.0).argmax())  # whose constant sets the scale
            raise NotEquivalentError(
                f"{step.place}: output {worst} varies by {float(spread[worst]):.3g} on the calibration data, and an encrypted answer "
                f"has noise of {float(noise[worst]):.3g} there: take a great constant out of the module, return outputs of other sizes as "
                "outputs of their own (a dict), or train it with more weight decay"
            )

    def _follow(self, step: Step, node: Activation, x: Tensor, wanted: Tensor) -> None:
        """The activation's statistics become those of ``x``; its function stays the same one of what ``wanted`` tells about the module."""
        known = x[: self.known]
        axes = [0, *range(2, x.dim())]
        mean, target = known.mean(axes), wanted.mean(axes)
        varies = ((known - per_channel(mean, x)) ** 2).mean(axes)
        together = ((known - per_channel(mean, x)) * (wanted - per_channel(target, x))).mean(axes)
        told = wanted.var(axes, unbiased=False)
        least = (told * varies).sqrt() / 2
        moving, noise = (varies > STILL) & (told > STILL), (varies > STILL) & (told <= STILL)
        std = deviation(known)
        unit = torch.where(moving, torch.maximum(together, least) / varies.clamp_min(STILL), torch.ones(()))
        factor = torch.where(noise, torch.ones(()), node.std / (std * unit))  # noise stays within the constant's ramp
        node.offset.copy_(((target - node.mean) / node.std + node.offset) * factor)
        node.mean.copy_(mean)
        node.std.copy_(std)
        node.spread.copy_(self.spread.get(self.network.wiring.owner[step.name] or "", std))
        if isinstance(node, ReLU):
            node.top.mul_(factor)
            node.floor.copy_(torch.minimum(node.floor, node.top))
        elif isinstance(node, LookUp):
            node.low.copy_(torch.where(noise, node.offset - NOISE_RAMP, node.low * factor))
            node.high.copy_(torch.where(noise, node.offset + NOISE_RAMP, node.high * factor))
            node.gain.div_(factor)
        self.drives.choose(step, node, x)


def _unrounded(node: nn.Module) -> nn.Module:
    """The node as it is before anything is rounded."""
    own = deepcopy(node)
    for part in own.modules():
        if isinstance(part, ShiftWeights | Activation):
            part.quantized = False
    return own
