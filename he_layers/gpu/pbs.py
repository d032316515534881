"""Programmable bootstrapping on a device, in batches that its free memory holds."""

from __future__ import annotations

import torch
from torch import Tensor

from ciphershift.errors import BadShapeError
from ciphershift.he_layers.gpu import blind_rotate, lwe
from ciphershift.he_layers.gpu.device import free_bytes
from ciphershift.he_layers.gpu.keys import DeviceKeys

MOST_TOGETHER = 16384
MOST_TOGETHER_UNFUSED = 4096
"""Ciphertexts of one batch: more of them gain nothing."""
CPU_TOGETHER = 64
"""The same where the device is the CPU, whose caches hold few."""


def pbs(x: Tensor, keys: DeviceKeys, tables: Tensor, table_index: Tensor, second: Tensor | None = None) -> Tensor:
    """Looks every phase up in a table: key_switch, modulus_switch, blind_rotate, sample_extract; see he_layers.crypto.pbs.

    Args:
        x: int32 [count, dimension + 1].
        keys: of the ciphertexts' owner.
        tables: float64 [tables, N], turns.
        table_index: int64 [count].
        second: int32 [count], s from 1 to 2N - 1: f(phi + s / 2N), too, by a rotation of its own.

    Returns:
        int32 [count, k * N + 1]; with ``second`` as many again behind them.

    Raises:
        BadShapeError: the ciphertexts are under no key of the parameter set.
    """
    count, points = len(x), 2 * keys.params.polynomial_size
    results = count if second is None else 2 * count
    out = torch.empty((results, keys.params.big_dimension + 1), dtype=torch.int32, device=x.device)
    step = together(keys)
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        switched = modulus_switch(key_switch(x[part], keys), keys)
        out[part] = rotate(switched, keys, tables, table_index[part])
        if second is not None:
            switched[:, -1] = (switched[:, -1] + second[part]) % points
            out[count + part.start : count + part.stop] = rotate(switched, keys, tables, table_index[part])
    return out


def together(keys: DeviceKeys) -> int:
    """Ciphertexts of one batch: what half of the free memory holds."""
    if keys.device.type == "cpu":
        return CPU_TOGETHER
    params = keys.params
    words = max(params.input_ring.ring_degree, params.big_dimension)
    each = words * (8 * params.key_switch.levels + 4 * (params.key_switch.levels + 8))
    most = MOST_TOGETHER
    if keys.fused is None:
        each, most = each + blind_rotate.bytes_per_ciphertext(params), MOST_TOGETHER_UNFUSED
    return max(1, min(most, free_bytes(keys.device) // 2 // each))


def key_switch(x: Tensor, keys: DeviceKeys) -> Tensor:
    """Brings ciphertexts to the small key, from the CKKS secret, from the big key, or from both one after the other.

    Raises:
        BadShapeError: the ciphertexts are under none of these keys.
    """
    params, dimension = keys.params, x.shape[1] - 1
    from_input, from_big = params.input_ring.ring_degree, params.big_dimension
    if dimension == from_input:
        return lwe.key_switch(x, keys.input_ksk, params.key_switch, binary_key=False)
    if dimension == from_big:
        return lwe.key_switch(x, keys.ksk, params.key_switch, binary_key=True)
    if dimension == from_input + from_big:
        input_part = torch.cat([x[:, :from_input], torch.zeros_like(x[:, :1])], dim=1)
        switched = lwe.key_switch(input_part, keys.input_ksk, params.key_switch, binary_key=False)
        return switched + lwe.key_switch(x[:, from_input:], keys.ksk, params.key_switch, binary_key=True)
    raise BadShapeError(f"ciphertexts of dimension {dimension} are under no key of {params.name}")


def modulus_switch(x: Tensor, keys: DeviceKeys) -> Tensor:
    """Rounds ciphertexts under the small key to 2N."""
    return lwe.modulus_switch(x, keys.params.polynomial_size, keys.params.block_length)


def rotate(switched: Tensor, keys: DeviceKeys, tables: Tensor, table_index: Tensor) -> Tensor:
    """Blind rotation and sample extraction, by the fused kernel where there is one."""
    if keys.fused is not None:
        return keys.fused(switched, tables, table_index, keys.bsk)
    acc = blind_rotate.load_tables(switched[:, -1], tables, table_index, keys.params)
    keys.graphs.run(acc, switched)
    return blind_rotate.extract(acc)
