"""How far the sums that a look-up reads may reach on the torus: as far as their window allows."""

import torch
from torch import Tensor
from torch.nn import functional

from ciphershift.errors import BadCalibrationError, NotEquivalentError
from ciphershift.he_layers.layers.max_pool import RAMP as POOL_RAMP
from ciphershift.he_layers.simulate import CircuitNoise
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.graph import Step
from ciphershift.models.compiler.network import Network
from ciphershift.models.nn.activations import Activation, CReLU, LookUp, ReLU, per_channel

MAX_OUTSIDE = 1e-2
"""Share of a look-up's inputs that may lie outside its valid window, on the calibration data."""
MAX_OUTSIDE_ELSEWHERE = 2e-2
"""The same on inverted samples and on noise, which tell whether other samples clip or wrap."""
DRIVES = (0.02, 0.16)
"""Least and greatest standard deviation, in turns, that is given to the sums of a layer."""
LEAST_DRIVE = 1e-3
"""The same of a layer whose sums vary little beside its ramp: below, what they say is lost in a look-up's noise."""
ROUNDING = 1e-4
"""Relative error of float sums that decides nothing."""
ROUNDS, TOLERATED = 20, 0.02
"""In which drives are lowered until all ramps fit; and the share of a ramp that may then be cut off for good."""
NOISE_DEVIATIONS = 3
"""Standard deviations of the look-up's noise that are kept free at both ends of the window."""


class Drives:
    """Chooses the drive of each activation from the sums that it reads.

    The first samples are those of the calibration, the others are from elsewhere: inverted ones, and noise.

    Attributes:
        pooled: by max-pool, the difference of the greatest and the least value of each window, [B, C, H, W].
    """

    def __init__(self, network: Network, noise: CircuitNoise, max_outside: float, known: int) -> None:
        """Prepare.

        Args:
            network: built from the operations.
            noise: of the circuit.
            max_outside: share of a look-up's inputs that may leave its window.
            known: how many samples are those of the calibration.
        """
        self.network, self.noise, self.max_outside, self.known = network, noise, max_outside, known
        self.pooled: dict[str, Tensor] = {}

    def watch(self, step: Step, x: Tensor, kernel: ir.Pair, stride: ir.Pair, padding: ir.Pair) -> None:
        """Notes how far the values [B, C, H, W] that a max-pool compares are apart."""
        greatest, least = (functional.max_pool2d(values, kernel, stride, padding) for values in (x, -x))
        self.pooled[step.name] = greatest + least

    def turns(self, step: Step, node: Activation, drive: float) -> Tensor:
        """Turns for one unit of each channel at this drive."""
        least = torch.zeros_like(node.spread)
        owner = self.network.wiring.owner[step.name]
        room = 3 if owner and owner not in self.network.wiring.uniform else 0
        exponent = torch.log2(node.reach.max() / node.reach).round().clamp(0, room) + least
        return drive / (node.spread * 2.0**exponent).pow(2).mean().sqrt() * 2.0**exponent

    def choose(self, step: Step, node: Activation, x: Tensor) -> None:
        """The greatest drive for which few enough of the sums leave a window of the activation or of its pools.

        Raises:
            BadCalibrationError: there is none.
        """
        low, high = DRIVES
        for _ in range(12):
            middle = (low * high) ** 0.5
            seen, elsewhere = self._outside(step, node, x, middle)
            fits = seen <= self.max_outside and elsewhere <= max(self.max_outside, MAX_OUTSIDE_ELSEWHERE)
            low, high = (middle, high) if fits else (low, middle)
        while (seen := self._outside(step, node, x, low)[0]) > self.max_outside:
            low /= 2
            if low < LEAST_DRIVE:
                raise BadCalibrationError(
                    f"{step.place}: {seen:.1%} of the inputs of {step.name!r} would be clipped on the calibration data: they "
                    "vary too little beside its range, or one channel unlike the others; put a batch norm before it"
                )
        node.drive.fill_(low)

    def hold(self) -> None:
        """Lowers the drives of ramps that would be too long where their sums lie, at a scale that they share with others.

        A ramp that is shortened there gives other units than its readers count on.

        Raises:
            NotEquivalentError: no drives are found for which all ramps fit.
        """
        excess: dict[ReLU, tuple[float, str]] = {}
        for _ in range(ROUNDS):
            torus, excess = self.network.torus(), {}
            for step, node in self.network.steps():
                if isinstance(node, ReLU):
                    longest = node.max_ramp * node.levels / node.span
                    reached = float((node.top * node.std * torus.turns(step.inputs[0])).max()) / longest
                    if reached > max(1 + ROUNDING, excess.get(node, (0.0, ""))[0]):
                        excess[node] = reached, step.place
            if not excess:
                return
            for node, (reached, _) in excess.items():  # one node may be that of several steps
                node.drive.div_(reached)
        worst, place = max(excess.values())
        if worst > 1 + TOLERATED:
            raise NotEquivalentError(
                f"{place}: the ramp of this activation would be {worst:.2f} times as long as the torus allows, at the scale that its sums "
                "share with others; a fault of the conversion, not of the network: put a batch norm before the activation, and report it"
            )

    def _outside(self, step: Step, node: Activation, x: Tensor, drive: float) -> tuple[float, float]:
        """Share of the sums that leave the window at this drive, on the calibration data and on other samples.

        Of several windows, the activation's and those of pools before it, the one that is left most often counts; so do values that the
        longest ramp would clip.
        """
        turns = self.turns(step, node, drive)
        under_input, _ = self.network.wiring.keys[step.inputs[0]]
        margin = NOISE_DEVIATIONS * self.noise.lookup_input(under_input, True)
        above_zero = (x - per_channel(node.mean, x) + per_channel(node.offset * node.std, x)) * per_channel(turns, x)
        low, high, cut = self._ends(step, node, above_zero, turns)
        above_start = above_zero - per_channel(low, x)
        ramp = per_channel(high - low, x)
        greatest = 0.5 - margin - (ramp if isinstance(node, CReLU) else 0)
        outside = [(above_start > greatest) | (above_start < -0.5 + margin + ramp)]
        name, by_name = step.inputs[0], self.network.wiring.by_name
        while name in self.pooled or (name in by_name and issubclass(by_name[name].kind, ir.Affine)):
            if name in self.pooled:
                spans = self.pooled[name]
                outside.append(spans * per_channel(turns, spans) > POOL_RAMP - margin)
            name = by_name[name].inputs[0]
        shares = [(float(o[: self.known].float().mean()), float(o[self.known :].float().mean())) for o in outside]
        shares.append((float(cut[: self.known].float().mean()), 0.0))
        return max(seen for seen, _ in shares), max(elsewhere for _, elsewhere in shares)

    def _ends(self, step: Step, node: Activation, phases: Tensor, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ends of the ramp in turns from the function's zero, [C] each; and which phases it clips only for being too long."""
        if isinstance(node, LookUp):
            scale = node.std * turns
            low, high = (bound * scale for bound in node.bounds(turns))
            wanted, length = (node.high - node.low) * scale, high - low
        else:
            assert isinstance(node, ReLU), "an activation is a ramp or a function"
            wanted = node.top * node.std * turns
            longest = node.max_ramp * node.levels / node.span
            high = torch.clamp(wanted, max=longest)
            if step.name in self.network.wiring.powers:  # a ramp that does not fit is halved until it does
                halvings = torch.log2(wanted / longest * (1 - ROUNDING)).ceil().clamp_min(0)
                high = wanted / 2.0**halvings
            if node.uniform:  # all end where the first must
                high = wanted * (high / wanted).min()
            low, length = node.lowest / node.levels * high, high
        below, above = per_channel(low * (1 + ROUNDING), phases), per_channel(high * (1 + ROUNDING), phases)
        short = per_channel(length < wanted * (1 - ROUNDING), phases)
        if isinstance(node, CReLU):
            return low, high, short & (phases.abs() > above)
        flat_below = isinstance(node, ReLU) and node.lowest == 0  # a ReLU is 0 there
        return low, high, short & ((phases > above) | ((phases < below) & (not flat_below)))
