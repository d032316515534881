"""A device of torch against this machine's CPU: is every primitive right there, and how many look-ups a second does it do?"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ciphershift.benchmarks.crypto.noise import phases
from ciphershift.he_layers.crypto import lwe as on_host
from ciphershift.he_layers.crypto import noise
from ciphershift.he_layers.crypto import pbs as host_pbs
from ciphershift.he_layers.crypto.ciphertexts import LweCiphertextList
from ciphershift.he_layers.crypto.evaluation_keys import ServerKeys
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.gpu import pbs
from ciphershift.he_layers.gpu.device import words_from, words_to
from ciphershift.he_layers.gpu.keys import DeviceKeys
from ciphershift.he_layers.native import _kernel

REPETITIONS = 3
KEY_ID = "00" * 32  # nothing is sent anywhere


class Workbench:
    """One client's keys on the host and on the device."""

    def __init__(self, parameter_set: ParameterSet, device: torch.device, threads: int) -> None:
        """Makes and loads them. Args: threads: of the native kernel."""
        self.params, self.device, self.threads = parameter_set, device, threads
        self.rng = np.random.default_rng()
        self.client = ClientKeys.generate(parameter_set)
        self.server: ServerKeys = self.client.evaluation_keys(threads).expand(threads)
        started = time.perf_counter()
        self.keys = DeviceKeys.load(self.server, device)
        self.load_seconds = time.perf_counter() - started
        self.fused_keys = DeviceKeys.load(self.server, device, use_fused=True)

    @property
    def variants(self) -> dict[str, DeviceKeys]:
        """The keys for torch's own operations, and for the fused kernel where there is one."""
        return {"torch": self.keys} | ({"fused": self.fused_keys} if self.fused_keys.fused is not None else {})

    def words(self, count: int) -> NDArray[np.uint32]:
        """Ciphertexts of nothing in particular under the big key."""
        return self.rng.integers(0, 2**32, (count, self.params.big_dimension + 1), dtype=np.uint32)

    def synchronize(self) -> None:
        """Waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def timed(self, call: Callable[[], object]) -> float:
        """Median seconds after one call that is not counted."""
        seconds = []
        for _ in range(REPETITIONS + 1):
            self.synchronize()
            started = time.perf_counter()
            call()
            self.synchronize()
            seconds.append(time.perf_counter() - started)
        return median(seconds[1:])


def correctness(bench: Workbench, count: int) -> dict[str, Any]:
    """Key switch and modulus switch word for word against the kernel, and the noise of rotations against its formula.

    A standard deviation from m samples has a relative error of 1 / sqrt(2 m). The largest error of a rotation is given in units of the
    predicted standard deviation, too: 4.5 of them are rare in 10 000.
    """
    x = bench.words(min(count, 256))
    switched = pbs.key_switch(words_to(bench.device, x), bench.keys)
    small = on_host.key_switch(LweCiphertextList(x), bench.server, threads=bench.threads)
    rounded = pbs.modulus_switch(switched, bench.keys)
    want = _kernel.modulus_switch(
        small.data, polynomial_size=bench.params.polynomial_size, block_length=bench.params.block_length
    )
    result: dict[str, Any] = {
        "key_switch_equal": bool(np.array_equal(words_from(switched), small.data)),
        "modulus_switch_equal": bool(np.array_equal(rounded.cpu().numpy(), want)),
    } | {f"rotation_{name}": _rotation_noise(bench, keys, count) for name, keys in bench.variants.items()}
    if bench.fused_keys.fused is not None:
        result["one_step_worst_word_difference"] = bench.fused_keys.fused.worst_difference()
    return result


def _rotation_noise(bench: Workbench, keys: DeviceKeys, count: int) -> dict[str, Any]:
    """Random tables at random phases: the result against the table at the very point that was looked up."""
    size, rng = bench.params.polynomial_size, bench.rng
    switched = rng.integers(0, 2 * size, (count, bench.params.lwe_dimension + 1), dtype=np.int32)
    key = bench.client.small_lwe_keys[0].astype(np.int64)
    point = (switched[:, -1] - switched[:, :-1].astype(np.int64) @ key) % (2 * size)
    table, index = rng.uniform(-0.25, 0.25, (1, size)), torch.zeros(count, dtype=torch.int64, device=bench.device)
    on_device = torch.from_numpy(switched).to(bench.device), torch.from_numpy(table).to(bench.device)
    rows = words_from(pbs.rotate(on_device[0], keys, on_device[1], index))
    want = np.where(point < size, table[0, point % size], -table[0, point % size])
    errors = (phases(LweCiphertextList(rows), bench.client.big_lwe_keys[0]) - want + 0.5) % 1 - 0.5
    predicted, measured = noise.pbs_variance(bench.params) ** 0.5, float(np.sqrt(np.mean(errors**2)))
    return {
        "samples": count,
        "predicted_std": predicted,
        "measured_std": measured,
        "ratio": round(measured / predicted, 4),
        "worst_in_std": round(float(np.abs(errors).max()) / predicted, 2),
    }


def lookups(bench: Workbench, keys: DeviceKeys, count: int) -> dict[str, Any]:
    """Look-ups a second: key switch, modulus switch, rotation and extraction of ``count`` ciphertexts that lie on the device."""
    x, table, index = _inputs(bench, count)
    seconds = bench.timed(lambda: pbs.pbs(x, keys, table, index))
    switching = bench.timed(lambda: pbs.modulus_switch(pbs.key_switch(x[:2048], keys), keys)) / min(count, 2048)
    return {
        "count": count,
        "seconds": round(seconds, 5),
        "per_second": round(count / seconds),
        "switching_us_each": round(switching * 1e6, 3),
    }


def blocks(bench: Workbench, count: int) -> dict[str, int]:
    """Rotations a second of the fused kernel by the ciphertexts of one block."""
    fused = bench.fused_keys.fused
    if fused is None:
        return {}
    x, table, index = _inputs(bench, count)
    switched = pbs.modulus_switch(pbs.key_switch(x[:2048], bench.keys), bench.keys)
    switched = switched.repeat(-(-count // len(switched)), 1)[:count]
    return {
        str(together): round(
            count / bench.timed(lambda few=together: fused(switched, table, index, bench.fused_keys.bsk, together=few))  # type: ignore[misc]
        )
        for together in fused.kernels
    }


def lookups_on_host(bench: Workbench, count: int) -> dict[str, Any]:
    """The same by the native kernel on all threads."""
    x, table, index = (
        LweCiphertextList(bench.words(count)),
        np.zeros((1, bench.params.polynomial_size)),
        np.zeros(count, np.int32),
    )
    seconds = bench.timed(lambda: host_pbs.pbs(x, bench.server, table, index, threads=bench.threads))
    return {"count": count, "seconds": round(seconds, 4), "per_second": round(count / seconds)}


def _inputs(bench: Workbench, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    table = torch.from_numpy(bench.rng.uniform(-0.25, 0.25, (1, bench.params.polynomial_size))).to(bench.device)
    index = torch.zeros(count, dtype=torch.int64, device=bench.device)
    return words_to(bench.device, bench.words(count)), table, index
