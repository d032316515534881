"""Linear layers whose weights are 0 or +-2^e, trained with the straight-through estimator.

The layer keeps real weights and uses their nearest value in {0, +-1, +-2, .., +-2^(exponents - 1)} after dividing by a scale: the standard
deviation of the channel's weights times a constant for hidden layers, whose outputs are normalized afterwards, so that the scale has no
meaning there. Where it has one, because the sums are added to other values, it is a power of two times a given reference. The gradient
passes the rounding unchanged (Bengio et al. 2013, arXiv 1308.3432; power-of-two weights: Elhoushi et al., arXiv 1905.13298). The scale, and
so the size from which weights are clipped, may be learned, too (Esser et al., arXiv 1902.08153).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ciphershift.he_layers.crypto.params import PRODUCT_BODY_BITS
from ciphershift.he_layers.layers.layer import MAX_EXPONENT

TOP_DEVIATIONS = 3.2
"""Standard deviations of the weights that the greatest power of two stands for."""
GREATEST_INTEGER = 32767
"""Of weights that are multiplied and not shifted."""
BALANCE = 6 / 0.8 * 2.0**-PRODUCT_BODY_BITS
"""Of a network without look-ups, where a number that is encrypted and a weight are both rounded: the number to 2^-b turns, in an input that
spans 0.8 turns (twice `compiler.scales.LOGIT_PEAK`) over the greatest sum of weights, and whose values deviate by a sixth of its span."""


def to_powers_of_two(weights: Tensor, exponents: int) -> Tensor:
    """Nearest of {0, +-1, +-2, .., +-2^(exponents - 1)} to each weight."""
    size = weights.abs()
    nearest = (size >= 0.5).float()
    for exponent in range(1, exponents):
        nearest = nearest + 2 ** (exponent - 1) * (size >= 1.5 * 2 ** (exponent - 1)).float()
    return torch.copysign(nearest, weights)


class ShiftWeights(nn.Module):
    """Mixin: real ``weight`` and the integer weights made from it."""

    weight: Tensor
    reference: Tensor | None
    widening: Tensor | None
    clip: nn.Parameter | None
    mask: Tensor | None

    def __init__(self, *, per_channel: bool, exponents: int, mask: Tensor | None = None) -> None:
        """Choose the grid.

        Args:
            per_channel: one scale for each output channel, otherwise one for the whole layer.
            exponents: how many powers of two there are.
            mask: bool, of the weights' shape, false where there is no weight; none if there are all.
        """
        super().__init__()
        if not 1 <= exponents <= MAX_EXPONENT + 1:
            raise ValueError(f"exponents = {exponents}; weights have 1 to {MAX_EXPONENT + 1} powers of two")
        self.per_channel, self.exponents = per_channel, exponents
        self.quantized = False
        self._held: Tensor | None = None
        self.register_buffer("reference", None)
        self.register_buffer("widening", None)
        self.register_parameter("clip", None)
        self.register_buffer("mask", mask, persistent=False)

    def size_of(self, weight: Tensor, rows: Tensor) -> Tensor:
        """Root mean square of the weights that there are in some rows, []."""
        count = weight[rows].numel() if self.mask is None else self.mask[rows].sum()
        return (weight[rows].pow(2).sum() / max(int(count), 1)).sqrt()

    def refer_to(self, reference: Tensor) -> None:
        """From now on sums are in units of ``reference``, real [O] in the coordinates of ``weight``."""
        self.register_buffer("reference", reference.detach().clone())

    def widen(self, factors: Tensor) -> None:
        """From now on the scale of each channel is ``factors`` [O] times as large ([1] for all of a layer of one scale)."""
        self.register_buffer("widening", factors.detach().clone())

    def learn_clip(self, on: bool) -> None:
        """Learn a factor of each scale from now on, with the logarithm ``clip`` [O] ([1] for one scale), or keep what was learned.

        Only where the scale is free: a layer with a reference stays as it is.
        """
        if on and self.clip is not None:
            self.clip.requires_grad_(True)
        elif on and self.reference is None:
            count = len(self.weight) if self.per_channel else 1
            self.clip = nn.Parameter(self.weight.new_zeros(count))
        elif not on and self.clip is not None:
            factors = self.clip.detach().exp()
            self.clip = None
            self.widen(factors if self.widening is None else factors * self.widening)

    def take(self, weight: Tensor, scale: Tensor) -> None:
        """Become these weights, float [O, I, ...], rounded in units of ``scale``, float [O] (all equal in a layer of one scale)."""
        self.weight.copy_(weight)
        self.widening = None
        factors = scale / self._free_scale().flatten()
        self.widen(factors if self.per_channel else factors[:1])

    def sum_unit(self) -> Tensor:
        """What one unit of the sums is worth in the coordinates of ``weight``, float [O]."""
        unit = self.scale().flatten() if self.reference is None else self.reference
        return unit.expand(len(self.weight))

    def _free_scale(self) -> Tensor:
        weight = self.weight.detach()
        axes = tuple(range(1, weight.dim())) if self.per_channel else tuple(range(weight.dim()))
        units_per_std = 2 ** (self.exponents - 1) / TOP_DEVIATIONS
        square = weight.pow(2).mean(axes, keepdim=True)
        if self.mask is not None:
            square = square / self.mask.float().mean(axes, keepdim=True).clamp_min(1e-8)
        scale: Tensor = square.sqrt().clamp_min(1e-8) / units_per_std
        if self.widening is not None:
            scale = scale * self.widening.view(-1, *[1] * (weight.dim() - 1))
        if self.clip is not None:
            scale = scale * self.clip.exp().view(-1, *[1] * (weight.dim() - 1))
        return scale

    def shift(self) -> Tensor:
        """Power of two from integer weights to sums in units of the reference, as its exponent, float [O]; 0 without a reference."""
        if self.reference is None:
            return torch.zeros(len(self.weight), device=self.weight.device)
        return torch.log2(self._free_scale().flatten() / self.reference).round()

    def scale(self) -> Tensor:
        """Real value of one integer unit of the weights, shape [O, 1, ...] or [1, 1, ...]."""
        if self.reference is None:
            return self._free_scale()
        return (self.reference * 2.0 ** self.shift()).view(-1, *[1] * (self.weight.dim() - 1))

    def integer_weight(self) -> Tensor:
        """The weights in integer units: exact powers of two once ``quantized``, the unrounded ones before."""
        weight = self.weight if self.mask is None else self.weight * self.mask
        scale = self.scale()
        scaled: Tensor = weight / scale.detach()
        if not self.quantized:
            return scaled
        rounded: Tensor = scaled + (self._nearest(scaled) - scaled).detach()
        if self.clip is not None:
            greatest = 2 ** (self.exponents - 1)
            fitted = weight.detach().div(scale).clamp(-greatest, greatest)  # beyond it a weight stays what it is
            rounded = rounded + (fitted - fitted.detach())
        return rounded

    def _nearest(self, scaled: Tensor) -> Tensor:
        return to_powers_of_two(scaled, self.exponents)

    def hold(self, on: bool) -> None:
        """Compute the integer weights once for all uses until they are released, as for the steps of a recurrent layer."""
        self._held = None
        self._held = self.unit_weight() if on else None

    def unit_weight(self) -> Tensor:
        """The weights in units of the sums: those of the reference, if there is one."""
        if self._held is not None:
            return self._held
        if self.reference is None:
            return self.integer_weight()
        return self.integer_weight() * (2.0 ** self.shift()).view(-1, *[1] * (self.weight.dim() - 1))


class ShiftConv2d(ShiftWeights):
    """Convolution without bias; returns sums in units of its integer weights (or of its reference)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        *,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        groups: int = 1,
        exponents: int = 4,
        per_channel: bool = True,
    ) -> None:
        super().__init__(per_channel=per_channel, exponents=exponents)
        self.stride, self.padding, self.groups = stride, padding, groups
        self.weight = nn.Parameter(nn.init.kaiming_normal_(torch.empty(outputs, inputs // groups, *kernel)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H', W'], float also where torch.autocast multiplies in bfloat16."""
        return functional.conv2d(x, self.unit_weight(), None, self.stride, self.padding, 1, self.groups).float()


class ShiftLinear(ShiftWeights):
    """Dense layer without bias; returns sums in units of its integer weights (or of its reference)."""

    def __init__(
        self, inputs: int, outputs: int, *, per_channel: bool = True, exponents: int = 4, mask: Tensor | None = None
    ) -> None:
        super().__init__(per_channel=per_channel, exponents=exponents, mask=mask)
        self.weight = nn.Parameter(nn.init.kaiming_normal_(torch.empty(outputs, inputs)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, I] -> [B, O], float as ShiftConv2d's."""
        return functional.linear(x, self.unit_weight()).float()


class WholeLinear(ShiftLinear):
    """Dense layer whose weights are integers, for a network without look-ups; one scale for the whole layer.

    With finer weights the integers are larger, so that the input, of which no sum may leave the torus, is smaller beside the noise of its
    encryption. The scale is that at which this noise and the rounding of n weights add as much to a sum:
    unit^2 = BALANCE ||w|| |w| / sqrt(n), with the rows' norm (root mean square) and greatest sum of sizes; a bias
    is taken as none.
    """

    def __init__(self, inputs: int, outputs: int, *, mask: Tensor | None = None) -> None:
        super().__init__(inputs, outputs, per_channel=False, exponents=1, mask=mask)

    def learn_clip(self, on: bool) -> None:
        """Nothing: no weight is clipped."""

    def _free_scale(self) -> Tensor:
        size = self.weight.detach().abs() if self.mask is None else (self.weight.detach() * self.mask).abs()
        count = size.count_nonzero() / len(size)
        norm, greatest = size.square().sum(1).mean().sqrt(), size.sum(1).amax()
        balanced = (BALANCE * norm * greatest / count.clamp_min(1).sqrt()).sqrt()
        return torch.maximum(balanced, size.amax() / GREATEST_INTEGER).clamp_min(1e-12).view(1, 1)

    def _nearest(self, scaled: Tensor) -> Tensor:
        return scaled.round()
