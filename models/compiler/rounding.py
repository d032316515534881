"""Weights of a linear layer as powers of two that give nearly the sums of the float layer, on the inputs that it will really have.

With x the inputs of the converted network, t the float sums and s the scale, the integers q minimize E (t - s q x)^2, mean values taken
off, plus a ridge that holds s q near the float weights, since there may be fewer samples than weights. Like GPTQ (Frantar et al. 2023,
arXiv 2210.17323) it needs second moments alone, and each weight makes up for the errors of the others; here by coordinate descent, as in
CDQuant (Nair and Suggala 2024, arXiv 2406.17542), whose steps are exact on any grid.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ciphershift.models.nn.shift import ShiftConv2d, ShiftLinear, to_powers_of_two

RIDGE = 0.05
"""Share of the mean variance of an input that is added to that of each."""
ROWS = 40_000
"""Places of the samples that are looked at, at most, evenly spread."""
MOST_INPUTS = 4096
"""Weights of a channel for which moments are taken: 134 MB. Wider layers are rounded weight by weight."""
MOST_WORK = 10**10
"""Weights times those of a channel, likewise: what a sweep over the weights costs."""
CHUNK = 50
"""Samples at a time."""
BLOCK = 64
"""Weights of a channel between two updates of what is left of the others."""
SWEEPS = 3
"""Over all weights; more change next to nothing."""
FREE = 2.0 ** torch.tensor([-0.5, -0.25, 0.0, 0.25], dtype=torch.float64)
"""Factors of a layer's scale that are tried; the grid of powers of two repeats itself after a factor of 2."""
FIXED = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
"""The same where sums are added to others, so that the scale is a power of two times a given one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Of a layer's inputs x [I] and wanted sums t [O] (each of one group of a convolution): float64 covariances, ridge and all.

    Attributes:
        inputs: of x with x, [groups, I, I].
        sums: of t with x, in the coordinates of the float weights, [groups, O, I].
    """

    inputs: Tensor
    sums: Tensor


def moments(layer: ShiftConv2d | ShiftLinear, x: Tensor, wanted: Tensor) -> Moments:
    """Second moments of what the layer reads and of what it should give.

    Args:
        layer: with the float weights.
        x: inputs of the converted network, [B, I, ...].
        wanted: the float layer's sums for the same samples, in units of the layer's sums, [B, O, ...].
    """
    groups = layer.groups if isinstance(layer, ShiftConv2d) else 1
    weight = layer.weight.detach().double().view(groups, -1, layer.weight[0].numel())
    unit = layer.sum_unit().double()
    places = wanted[0, 0].numel()
    each = max(1, ROWS // len(x))
    chosen = torch.arange(places) if places <= each else torch.linspace(0, places - 1, each).long()
    count, mean_x, mean_t, xx, tx = 0, *[torch.zeros((), dtype=torch.float64)] * 4
    for some, result in zip(torch.split(x, CHUNK), torch.split(wanted, CHUNK), strict=True):
        rows = _patches(layer, some).view(len(some), groups, -1, places)[..., chosen].double()
        rows = rows.permute(1, 0, 3, 2).flatten(1, 2)
        t = (result.double() * unit.view(1, -1, *[1] * (result.dim() - 2))).view(len(some), groups, -1, places)
        t = t[..., chosen].permute(1, 0, 3, 2).flatten(1, 2)
        count += rows.shape[1]
        mean_x, mean_t = mean_x + rows.sum(1), mean_t + t.sum(1)
        xx, tx = xx + rows.mT @ rows, tx + t.mT @ rows
    mean_x, mean_t = mean_x / count, mean_t / count
    inputs = xx / count - mean_x[:, :, None] * mean_x[:, None]
    sums = tx / count - mean_t[:, :, None] * mean_x[:, None]
    ridge = RIDGE * inputs.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12).view(-1, 1, 1)
    return Moments(inputs=inputs + ridge * torch.eye(inputs.shape[1]), sums=sums + ridge * weight)


def fits(layer: ShiftConv2d | ShiftLinear) -> bool:
    """Whether the layer is small enough for moments."""
    inputs = layer.weight[0].numel()
    return inputs <= MOST_INPUTS and layer.weight.numel() * inputs <= MOST_WORK


def choose(layer: ShiftConv2d | ShiftLinear, known: Moments) -> None:
    """Makes the layer's weights powers of two times a scale.

    Weights that are 0 stay 0, and channels of which nothing would be left keep their weights.
    """
    groups, outputs, _ = known.sums.shape
    before = layer.scale().detach().double().flatten().expand(groups * outputs)
    free = layer.reference is None
    scale = before.view(groups, 1, outputs, 1) * (FREE if free else FIXED).view(1, -1, 1, 1)
    weight = layer.weight.detach().double().view(groups, 1, outputs, -1)
    integers = to_powers_of_two(weight / scale, layer.exponents)
    real = integers.clone()
    for _ in range(SWEEPS):
        if free:
            scale = _refitted(integers, scale, known, one=not layer.per_channel)
        real = _descend(integers, scale, known, layer.exponents, present=weight != 0)
    tried = integers * scale
    loss = (tried @ known.inputs[:, None] * tried).sum(-1) - 2 * (tried * known.sums[:, None]).sum(-1)
    if not layer.per_channel:
        loss = loss.sum((0, 2), keepdim=True).expand_as(loss)
    best = loss.argmin(1, keepdim=True)[..., None]
    integers, real = (
        x.gather(1, best.expand(-1, -1, -1, x.shape[-1])).view(layer.weight.shape) for x in (integers, real * scale)
    )
    scale = scale.gather(1, best).flatten()
    if layer.per_channel:
        empty = (integers.flatten(1) == 0).all(1)
        scale = torch.where(empty, before, scale)
        real = torch.where(empty.view(-1, *[1] * (real.dim() - 1)), layer.weight.double(), real)
    layer.take(real.float(), scale.float())


def _refitted(integers: Tensor, scale: Tensor, known: Moments, *, one: bool) -> Tensor:
    """The best scales of these integers, [groups, candidates, O, 1]; ``one``: the same for all of a candidate."""
    match = (integers * known.sums[:, None]).sum(-1, keepdim=True)
    size = (integers @ known.inputs[:, None] * integers).sum(-1, keepdim=True)
    if one:
        match, size = (values.sum((0, 2), keepdim=True) for values in (match, size))
    return torch.where((match > 0) & (size > 0), match / size.clamp_min(1e-30), scale)


def _descend(integers: Tensor, scale: Tensor, known: Moments, exponents: int, *, present: Tensor) -> Tensor:
    """Sets each weight of the candidates [groups, candidates, O, I] to the best power of two beside the others, one after the other.

    Args:
        integers: changed in place.
        scale: of each channel, [groups, candidates, O, 1].
        known: second moments.
        exponents: powers of two that there are.
        present: which weights there are, bool [groups, 1, O, I].

    Returns:
        The best real numbers, of which these are the nearest powers of two, in units of the scale: training goes on from them.
    """
    real, most = integers.clone(), 1.5 * 2 ** (exponents - 1)
    inputs = known.inputs[:, None]
    own = known.inputs.diagonal(dim1=1, dim2=2)[:, None, None]
    rest = known.sums[:, None] - integers * scale @ inputs
    for start in range(0, integers.shape[-1], BLOCK):
        block = slice(start, start + BLOCK)
        before, within = integers[..., block].clone(), rest[..., block].clone()
        for place in range(before.shape[-1]):
            at, column = slice(start + place, start + place + 1), slice(place, place + 1)
            best = (integers[..., at] + within[..., column] / (own[..., at] * scale)) * present[..., at]
            rounded = to_powers_of_two(best, exponents)
            real[..., at] = best.clamp(-most, most)
            within -= (rounded - integers[..., at]) * scale * inputs[..., at, block]
            integers[..., at] = rounded
        rest -= (integers[..., block] - before) * scale @ inputs[..., block, :]
    return real


def _patches(layer: ShiftConv2d | ShiftLinear, x: Tensor) -> Tensor:
    """What each sum adds up, [B, I * kernel, places]."""
    if isinstance(layer, ShiftLinear):
        return x[..., None]
    return functional.unfold(x, layer.weight.shape[2:], padding=layer.padding, stride=layer.stride)
