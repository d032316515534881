"""Evaluation keys on a device, in the forms that its primitives take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ciphershift.errors import WrongParamsError
from ciphershift.he_layers.crypto.evaluation_keys import ServerKeys
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.gpu import blind_rotate, fused
from ciphershift.he_layers.gpu.fourier import Fourier, natural_order
from ciphershift.he_layers.gpu.fused import FusedRotation
from ciphershift.he_layers.gpu.graphs import StepGraphs
from ciphershift.he_layers.gpu.steps import StepShape


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceKeys:
    """Evaluation keys of one client. The answer key stays on the host, where the few logits are packed."""

    params: ParameterSet
    device: torch.device
    input_ksk: Tensor  # float64 [input ring degree * levels, n + 1], signed words
    ksk: Tensor  # float64 [k * N * levels, n + 1]
    bsk: Tensor  # of fused.key_for_kernel if there is a fused rotation, else of blind_rotate.key_for_steps
    answer_key: NDArray[np.uint64]
    fourier: Fourier
    fused: FusedRotation | None
    graphs: StepGraphs

    @classmethod
    def load(cls, keys: ServerKeys, device: torch.device, *, use_fused: bool = False) -> DeviceKeys:
        """Copies expanded keys to the device.

        Args:
            keys: as the kernel takes them.
            device: where to.
            use_fused: whether the fused rotation is used where there is one; off until it has been measured (docs/gpu.md).

        Raises:
            WrongParamsError: they are of a set whose look-ups share masks, which the kernel alone evaluates.
        """
        if keys.params.bodies > 1:
            raise WrongParamsError(
                f"look-ups of {keys.params.name} share masks, which a device does not evaluate; take another engine, or another set"
            )
        params, shape = keys.params, StepShape.of(keys.params)
        fourier = tables(params.polynomial_size, device)
        rotation = fused.fused_rotation(params, fourier, device) if use_fused else None
        raw = torch.from_numpy(keys.fourier_bsk).to(device)
        natural = torch.from_numpy(natural_order(fourier.points)).to(device)
        ordered = torch.view_as_complex(raw)[:, natural]
        del raw
        bsk = (fused.key_for_kernel if rotation else blind_rotate.key_for_steps)(ordered, shape)
        return cls(
            params=params,
            device=device,
            input_ksk=_key_switch_key(keys.input_ksk, params, device),
            ksk=_key_switch_key(keys.ksk, params, device),
            bsk=bsk,
            answer_key=keys.answer_key,
            fourier=fourier,
            fused=rotation,
            graphs=StepGraphs(bsk, params, fourier),
        )

    @property
    def nbytes(self) -> int:
        """Bytes held, nearly all of them on the device."""
        on_device = sum(tensor.nbytes for tensor in (self.input_ksk, self.ksk, self.bsk))
        return on_device + self.answer_key.nbytes


@cache
def tables(polynomial_size: int, device: torch.device) -> Fourier:
    """The transforms' tables, one for all keys."""
    return Fourier(polynomial_size, device)


def _key_switch_key(tiles: NDArray[np.uint32], params: ParameterSet, device: torch.device) -> Tensor:
    rows = tiles.shape[1]
    words = tiles.view(np.int32).transpose(1, 0, 2).reshape(rows, -1)[:, : params.lwe_dimension + 1]
    return torch.from_numpy(np.ascontiguousarray(words)).to(device).to(torch.float64)
