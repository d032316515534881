"""Which device computes, and how much of its memory is free."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ciphershift.errors import ConfigurationError

CPU_BYTES = 2 << 30
"""What a batch may take of the host's memory where the device is the CPU."""


def find(name: str, *, threads: int) -> torch.device:
    """Returns the device of a name such as ``cuda:0`` or ``cpu``.

    Args:
        name: torch's.
        threads: of torch in this process, where the device is the CPU.

    Raises:
        ConfigurationError: there is none of this name here, or it computes no double precision.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, dtype=torch.complex128, device=device)
        torch.set_num_threads(threads)
    except (
        RuntimeError,
        AssertionError,
        TypeError,
    ) as error:  # as torch has it: a wrong name, no driver, no such card, no such type
        reason = str(error).splitlines()[0]
        raise ConfigurationError(
            f"torch {torch.__version__} cannot compute on {name!r} ({reason}): name a device that this machine has, such as cuda:0"
        ) from None
    return device


def free_bytes(device: torch.device) -> int:
    """Memory that a batch may take: what the card has free and what torch holds in reserve; CPU_BYTES on the CPU."""
    if device.type == "cpu":
        return CPU_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def words_to(device: torch.device, words: NDArray[np.uint32]) -> Tensor:
    """Torus words as int32 on the device."""
    return torch.from_numpy(np.ascontiguousarray(words).view(np.int32)).to(device)


def words_from(x: Tensor) -> NDArray[np.uint32]:
    """The inverse of words_to."""
    words: NDArray[np.uint32] = x.cpu().numpy().view(np.uint32)
    return words
