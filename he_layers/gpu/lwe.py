"""LWE ciphertexts on a device: extraction, shift-linear maps, key switch, modulus switch; the integers of he_layers.crypto.lwe.

Lists are int32 [count, dimension + 1]. Sums of products are formed in double precision, where they are exact below 2^53: a word is below
2^31 in size, so the sizes of the factors of one sum may add up to 2^22.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ciphershift.errors import BadShapeError
from ciphershift.he_layers.crypto import lwe
from ciphershift.he_layers.crypto.ciphertexts import CkksCiphertext
from ciphershift.he_layers.crypto.params import Gadget
from ciphershift.he_layers.gpu.device import words_to
from ciphershift.he_layers.layers.conv import Conv2d
from ciphershift.he_layers.layers.layer import LinearLayer, Shape
from ciphershift.he_layers.layers.linear import Linear

MOST_FACTORS = 1 << 22
"""Sum of the sizes of the factors of one sum, below which it is exact."""


def sample_extract(ciphertext: CkksCiphertext, device: torch.device) -> Tensor:
    """Reads every message coefficient as an LWE ciphertext, as lwe.sample_extract does; [messages, ring_degree + 1]."""
    params = ciphertext.params
    n = params.input_ring.ring_degree
    rows = torch.empty((len(ciphertext.c0), n + 1), dtype=torch.int32, device=device)
    for start, c1 in zip(range(0, len(rows), n), ciphertext.c1, strict=True):
        falling = words_to(device, lwe.to_words(c1 / params.input_ring.modulus)).flip(0)
        windows = torch.cat([falling, -falling]).unfold(0, n, 1)  # window n - 1 - i reads c1_i ... c1_0, -c1_{n-1} ...
        part = rows[start : start + n, :n]
        torch.neg(windows[n - len(part) : n].flip(0), out=part)
    rows[:, n] = words_to(device, ciphertext.c0.astype(np.uint32) << np.uint32(32 - params.input_body_bits))
    return rows


def linear(x: Tensor, layer: LinearLayer, shape: Shape) -> Tensor:
    """The layer's integer combinations of rows, for several images at once.

    Args:
        x: [images, values, words] int32.
        layer: what combines them; its constants are not added.
        shape: of one image's values.

    Returns:
        [images, output values, words].

    Raises:
        BadShapeError: a sum could be inexact.
    """
    if isinstance(layer, Conv2d):
        weight = torch.from_numpy(layer.weight).to(x.device, torch.float64)
        return _convolve(x, weight, layer, shape)
    if isinstance(layer, Linear):
        weight = torch.from_numpy(layer.weight).to(x.device, torch.float64)
        _check_sums(float(weight.abs().sum(dim=1).max()))
        return torch.stack([_words(weight @ image.to(torch.float64)) for image in x])
    entries = layer.matrix(shape)
    indices = torch.stack([torch.from_numpy(entries.row), torch.from_numpy(entries.column)])
    matrix = torch.sparse_coo_tensor(
        indices,
        torch.from_numpy(entries.values).to(torch.float64),
        (entries.rows, entries.columns),
        check_invariants=False,
    ).to(x.device)
    _check_sums(float(torch.sparse.sum(matrix.abs(), dim=1).to_dense().max()))
    return torch.stack([_words(torch.sparse.mm(matrix, image.to(torch.float64))) for image in x])


def _convolve(x: Tensor, weight: Tensor, layer: Conv2d, shape: Shape) -> Tensor:
    """One matrix product for each tap of the filters, over all places of an image and all words of a row at once."""
    maps, inputs, height, width = weight.shape
    _check_sums(float(weight.abs().sum(dim=(1, 2, 3)).max()))
    _, rows, columns = layer.output_shape(shape)
    (down, right), (top, left), words = layer.stride, layer.padding, x.shape[-1]
    grouped = weight.reshape(layer.groups, maps // layer.groups, inputs, height, width)
    results = []
    for image in x.reshape(len(x), *shape, words):
        padded = F.pad(image, (0, 0, left, left, top, top))
        sums = torch.zeros(
            (layer.groups, maps // layer.groups, rows * columns * words), dtype=torch.float64, device=x.device
        )
        for ky in range(height):
            for kx in range(width):
                window = padded[:, ky : ky + down * (rows - 1) + 1 : down, kx : kx + right * (columns - 1) + 1 : right]
                sums.baddbmm_(grouped[..., ky, kx], window.to(torch.float64).reshape(layer.groups, inputs, -1))
        results.append(_words(sums).reshape(maps * rows * columns, words))
    return torch.stack(results)


def _check_sums(factors: float) -> None:
    if factors >= MOST_FACTORS:
        raise BadShapeError(
            f"the weights of one output add up to {factors:.0f} in size; sums on a device are exact below {MOST_FACTORS}"
        )


def _words(sums: Tensor) -> Tensor:
    """Whole numbers below 2^53 in size modulo 2^32."""
    return sums.to(torch.int64).to(torch.int32)


def digits(a: Tensor, gadget: Gadget) -> tuple[Tensor, Tensor]:
    """The balanced digits of words, as native/src/key_switch.hpp has them, and what they leave out.

    Args:
        a: [...] int32.
        gadget: base and levels.

    Returns:
        int32 [..., levels], most significant first, and int32 [...].
    """
    base_log, levels = gadget.base_log, gadget.levels
    dropped, base = 32 - base_log * levels, 1 << base_log
    half = base // 2
    x = ((a >> dropped) & ((1 << (32 - dropped)) - 1)) + ((a >> (dropped - 1)) & 1)
    left_out = a - (x << dropped)
    found = []
    for level in reversed(range(levels)):
        digit, rest = x & (base - 1), x >> base_log
        next_is_high = (rest >> (base_log - 1)) & 1 if level else a & 1
        carry = (digit + next_is_high + (half - 1)) >> base_log
        found.append(digit - (carry << base_log))
        x = rest + carry
    return torch.stack(found[::-1], dim=-1), left_out


def key_switch(x: Tensor, key: Tensor, gadget: Gadget, *, binary_key: bool) -> Tensor:
    """(0, b) - sum of digits times key rows.

    Args:
        x: [count, dimension + 1].
        key: float64 [dimension * levels, output dimension + 1], signed words.
        gadget: of the key.
        binary_key: whether the key from which it leads has mean 1/2 (else 0); half of what the digits leave out then leaves the body.
    """
    found, left_out = digits(x[:, :-1], gadget)
    out = _words(-(found.reshape(len(x), -1).to(torch.float64) @ key))
    out[:, -1] += x[:, -1]
    if binary_key:
        out[:, -1] -= (left_out.sum(dim=1, dtype=torch.int64) >> 1).to(torch.int32)
    return out


def modulus_switch(x: Tensor, polynomial_size: int, block_length: int) -> Tensor:
    """Nearest multiples of 2^32 / 2N, int32 in 0..2N - 1; the mean of the mask's rounding error is taken from the body.

    A bit of a key in blocks of l bits is 1 with probability 1 / (l + 1): this part of the error is its mean.
    """
    shift = 32 - (2 * polynomial_size).bit_length() + 1
    half, modulus_mask = 1 << (shift - 1), 2 * polynomial_size - 1
    mask = ((x[:, :-1] + half) >> shift) & modulus_mask
    error = (x[:, :-1] - (mask << shift)).sum(dim=1, dtype=torch.int64)
    body = x[:, -1] - error.div(block_length + 1, rounding_mode="floor").to(torch.int32)
    return torch.cat([mask, (((body + half) >> shift) & modulus_mask)[:, None]], dim=1)
