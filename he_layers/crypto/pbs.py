"""Programmable bootstrapping: a table look-up on every ciphertext of a list, with fresh noise (CGGI, eprint 2018/421, Algorithm 9)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ciphershift.he_layers.crypto.ciphertexts import LweCiphertextList
from ciphershift.he_layers.crypto.evaluation_keys import ServerKeys
from ciphershift.he_layers.crypto.lwe import key_switch, merge
from ciphershift.he_layers.native import _kernel


def pbs(
    x: LweCiphertextList,
    keys: ServerKeys,
    tables: NDArray[np.float64],
    table_index: NDArray[np.int32],
    *,
    second: NDArray[np.int32] | None = None,
    threads: int = 1,
) -> LweCiphertextList:
    """Looks every phase up in a table: key_switch, modulus_switch, blind_rotate, sample_extract.

    Where ciphertexts share masks, any two that stand side by side, and be it for different tables, are merged before and split after.

    Args:
        x: ciphertexts under the CKKS secret or the big key.
        keys: expanded evaluation keys.
        tables: torus values, float64 [tables, N]: row t at index j is f_t(j / 2N). The other half of the torus is its negative,
            f(phi + 1/2) = -f(phi): the ring is negacyclic.
        table_index: which table each row uses, int32 [count].
        second: int32 [tables], s from 1 to 2N - 1 for each table: f_t(phi + s / 2N) is extracted from the same rotation, too.
        threads: threads of the kernel.

    Returns:
        [count, k * N + 1], under the (first) big key; with ``second`` as many again behind them, the second result of each row.

    Raises:
        BadShapeError: see key_switch and merge.

    Noise: the phase that is looked up carries x's noise and noise.lookup_input_variances; the result carries noise.pbs_variance, whatever
    the input's. Two results of one row were looked up at the same noisy phase; their own noises are those of two coefficients of one
    accumulator, whose correlation was measured as 0.4 side by side, falling to 0 half a ring apart.
    """
    params = keys.params
    if params.bodies > 1:
        x = merge(x, keys, threads=threads)
    small = key_switch(x, keys, threads=threads)
    switched = _kernel.modulus_switch(
        small.data, polynomial_size=params.polynomial_size, block_length=params.block_length, bodies=params.bodies
    )
    rotated = _kernel.blind_rotate(
        switched,
        np.ascontiguousarray(tables, dtype=np.float64),
        np.ascontiguousarray(table_index, dtype=np.int32),
        keys.fourier_bsk,
        base_log=params.pbs.base_log,
        levels=params.pbs.levels,
        grouping_factor=params.grouping_factor,
        block_length=params.block_length,
        bodies=params.bodies,
        threads=threads,
        split_key=keys.split_key,
        second=None if second is None else np.ascontiguousarray(second, dtype=np.int32),
    )
    return LweCiphertextList(rotated)
