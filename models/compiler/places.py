"""Functions of torch that only move values: what they do to places is found by running them on numbered places.

Slices, transpositions, padding, upsampling, broadcasting, joining: whatever torch's function does to the numbers 1, 2, 3, .. is what it
does to values. A result of 0 is a zero that the function put there.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ciphershift.models.compiler.step import Call, Postponed, UnsupportedStepError, Value

PLACE_MAPS = frozenset(
    {
        *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as"),
        *(
            "permute",
            "transpose",
            "t",
            "movedim",
            "moveaxis",
            "swapaxes",
            "flip",
            "roll",
            "channel_shuffle",
            "native_channel_shuffle",
        ),
        *(
            "slice",
            "select",
            "narrow",
            "split",
            "split_with_sizes",
            "chunk",
            "unbind",
            "tensor_split",
            "index_select",
            "index",
            "unfold",
        ),
        *("cat", "concat", "concatenate", "stack", "hstack", "vstack", "repeat", "repeat_interleave", "im2col"),
        *(
            "pad",
            "constant_pad_nd",
            "reflection_pad1d",
            "reflection_pad2d",
            "replication_pad1d",
            "replication_pad2d",
            "_pad_circular",
        ),
        *("pixel_shuffle", "pixel_unshuffle", "upsample_nearest1d", "upsample_nearest2d"),
        *("_upsample_nearest_exact1d", "_upsample_nearest_exact2d"),
        *("clone", "contiguous", "alias", "detach", "lift_fresh_copy", "_to_copy", "to"),
        *("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"),
    }
)
BATCH = 3


def move(call: Call) -> Value:
    """The operation of a call that only moves values.

    Raises:
        UnsupportedStepError: the function mixes the samples of a batch, or puts other numbers than zeros there.
    """
    kinds = [leaf for leaf in pytree.tree_leaves((call.arguments, call.options)) if isinstance(leaf, torch.dtype)]
    if any(not kind.is_floating_point for kind in kinds):
        raise UnsupportedStepError(
            f"makes {kinds[0]} of encrypted values",
            "leave them as floating-point numbers; torch.trunc(x) takes fractions off",
        )
    values = values_in((call.arguments, call.options))
    index = place_map(call, values)
    return call.gather(values, index, call.shape)


def values_in(arguments: Any) -> tuple[Value, ...]:
    """All values among arguments, in order."""
    found: list[Value] = []
    for leaf in pytree.tree_leaves(arguments):
        if isinstance(leaf, Postponed):
            found.extend(leaf.values)
        elif isinstance(leaf, Value):
            found.append(leaf)
    return tuple(found)


def postponed(call: Call) -> Postponed | None:
    """The values of a step that only moves them, if its result has the batch on another axis, as between two transpositions."""
    if call.function not in PLACE_MAPS:
        return None
    values = values_in((call.arguments, call.options))
    numbers, total = _numbered(values)
    try:
        result = _moved(call, numbers)
    except (RuntimeError, IndexError):  # what stands in for an unsupported step before it has another shape
        return None
    for axis in range(1, result.dim()):
        samples = result.movedim(axis, 0)
        first = samples[0]
        if len(samples) == BATCH and all(
            torch.equal(samples[i], torch.where(first > 0, first + i * total, first)) for i in range(1, BATCH)
        ):
            return Postponed(values=values, move=lambda tensors: _moved(call, tensors))
    return None


def _numbered(values: tuple[Value, ...]) -> tuple[tuple[Tensor, ...], int]:
    """Tensors [BATCH, ...] with a number for each place of each sample, from 1 on; and how many places a sample has."""
    total = sum(prod(value.shape) for value in values)
    numbers, start = [], 1
    for value in values:
        size = prod(value.shape)
        places = torch.arange(start, start + size, dtype=torch.float64).view(1, *value.shape)
        numbers.append(torch.cat([places + sample * total for sample in range(BATCH)]))
        start += size
    return tuple(numbers), total


def _moved(call: Call, tensors: tuple[Tensor, ...]) -> Tensor:
    """The call's function on tensors in the places of its values."""
    given = iter(tensors)

    def filled(leaf: Any) -> Any:
        if isinstance(leaf, Postponed):
            return leaf.move(tuple(next(given) for _ in leaf.values))
        return next(given) if isinstance(leaf, Value) else leaf

    arguments, options = (pytree.tree_map(filled, part) for part in (call.arguments, call.options))
    options = {
        key: value for key, value in options.items() if key not in ("dtype", "device", "layout", "memory_format")
    }
    result: Tensor = call.run(*arguments, **options)
    return result


def place_map(call: Call, values: tuple[Value, ...]) -> Tensor:
    """Flat index of every place of the result into the values one after the other; -1 for zero."""
    numbers, total = _numbered(values)
    try:
        result = _moved(call, numbers)
    except (RuntimeError, IndexError) as error:
        # a step before it, which has a finding of its own, gave another number of values
        raise UnsupportedStepError("moves values between samples", "treat every sample alike") from error
    if tuple(result.shape) != (BATCH, *call.shape):
        raise UnsupportedStepError("mixes the samples of a batch", "join along the channels: dim=1")
    places: Tensor = result[0].reshape(-1)
    if bool(((places != places.round()) | (places < 0) | ((places > 0) & (result[-1].reshape(-1) == places))).any()):
        raise UnsupportedStepError(
            "pads with other values than zero", "pad with zeros, or with the values of the border"
        )
    for sample in range(1, BATCH):
        moved = torch.where(places > 0, places + sample * total, places)
        if not torch.equal(result[sample].reshape(-1), moved):
            raise UnsupportedStepError("mixes the samples of a batch", "join along the channels: dim=1")
    return places.long() - 1
