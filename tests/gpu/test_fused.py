"""The CUDA kernel as it stands, compiled as C++ with one thread of this machine for each of a block, against torch's operations."""

import ctypes
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.gpu import blind_rotate, fused
from ciphershift.he_layers.gpu.fourier import natural_order
from ciphershift.he_layers.gpu.keys import tables
from ciphershift.he_layers.gpu.steps import StepShape

CPU = torch.device("cpu")
RNG = np.random.default_rng(5)


class Emulator:
    """A launch of the kernel for one parameter set."""

    def __init__(self, parameter_set: ParameterSet, together: int, folder: Path) -> None:
        compiler = shutil.which("c++") or shutil.which("g++")
        assert compiler is not None, "the native kernel was built by a C++ compiler, which is not here any more"
        library = folder / f"{parameter_set.name}-{together}.so"
        macros = [f"-D{name}={value}" for name, value in fused.defines(parameter_set, together).items()]
        source = Path(__file__).with_name("emulate.cpp")
        command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", "-pthread", "-Wno-unknown-pragmas", *macros]
        subprocess.run([*command, f'-DKERNEL="{fused.SOURCE}"', "-o", library, source], check=True)
        self._run = ctypes.CDLL(str(library)).run
        self._shared = fused.shared_bytes(parameter_set, together)

    def __call__(self, *tensors: torch.Tensor, count: int, steps: int) -> None:
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
        self._run(*pointers, ctypes.c_int(count), ctypes.c_int(steps), ctypes.c_int(self._shared))


def short(name: str, bits: int) -> ParameterSet:
    """A published set with so few bits of the small key that the emulation takes seconds."""
    return replace(params.get(name), lwe_dimension=bits)


@pytest.mark.parametrize(
    ("parameter_set", "together"),
    [
        (short("FAST_N512_PAIRS", 2), 4),
        (short("FAST_N512_PAIRS", 6), 2),
        (short("FAST_N512_BLOCK3", 6), 4),
        (short("FAST_N512_BLOCK4", 8), 3),
        (short("TOY_EXACT_N512", 3), 2),
    ],
    ids=["pairs, one step", "pairs", "blocks of three", "blocks of four", "one polynomial"],
)
def test_the_kernel_is_torchs_rotation_within_the_transforms_rounding(
    parameter_set: ParameterSet, together: int, tmp_path: Path
) -> None:
    """After one step every word; after more the phases, since a digit may round to the other side."""
    keys = ClientKeys.generate(parameter_set)
    server, shape, count = keys.evaluation_keys(2).expand(2), StepShape.of(parameter_set), 5
    fourier = tables(parameter_set.polynomial_size, CPU)
    bsk = torch.view_as_complex(torch.from_numpy(server.fourier_bsk))[:, torch.from_numpy(natural_order(256))]
    size = parameter_set.polynomial_size
    switched = torch.from_numpy(RNG.integers(0, 2 * size, (count, parameter_set.lwe_dimension + 1)).astype(np.int32))
    table = torch.from_numpy(RNG.uniform(-0.25, 0.25, (2, size)))
    index = torch.tensor([0, 1, 1, 0, 1])
    acc = blind_rotate.load_tables(switched[:, -1], table, index, parameter_set)
    blind_rotate.run_steps(acc, switched, blind_rotate.key_for_steps(bsk, shape), parameter_set, fourier)
    want = blind_rotate.extract(acc).numpy()
    out = torch.zeros((count, parameter_set.big_dimension + 1), dtype=torch.int32)
    emulator = Emulator(parameter_set, together, tmp_path)
    key = fused.key_for_kernel(bsk, shape)
    emulator(switched, table, index.to(torch.int32), key, fourier.roots, out, count=count, steps=shape.steps)
    error = (out.numpy() - want).astype(np.int64)
    phase = (error[:, -1] - error[:, :-1] @ keys.glwe_key.reshape(-1).astype(np.int64)).astype(np.int32)
    assert np.abs(phase).max() < 2**19
    assert shape.steps > 1 or np.abs(error.astype(np.int32)).max() < fused.WORD_BOUND


def test_what_the_kernel_is_not_written_for_is_left_to_torch() -> None:
    assert fused.covers(params.get("FAST_N512_PAIRS"))
    assert not fused.covers(params.get("EXACT_N2048"))
    assert fused.fused_rotation(params.get("FAST_N512_PAIRS"), tables(512, CPU), CPU) is None
