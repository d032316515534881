"""CUDA kernels compiled at run time by NVRTC, which comes with torch, and launched on torch's current stream."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

MAX_DYNAMIC_SHARED_MEMORY = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
SHARED_MEMORY_OPT_IN = 97  # CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN


class KernelError(Exception):
    """A kernel cannot be compiled, loaded or launched; the message has the driver's or the compiler's words."""


def compile_cubin(source: str, defines: Mapping[str, int], architecture: str) -> bytes:
    """Compiles for one architecture such as ``sm_90``; needs no GPU.

    Raises:
        KernelError: NVRTC is not there, or refuses the source.
    """
    nvrtc = _nvrtc()
    options = [
        f"--gpu-architecture={architecture}",
        "--std=c++17",
        *(f"-D{name}={value}" for name, value in defines.items()),
    ]
    program = ctypes.c_void_p()
    _checked(
        "nvrtcCreateProgram",
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None),
    )
    try:
        texts = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if nvrtc.nvrtcCompileProgram(program, len(options), texts):
            log = _fetch(nvrtc, program, "ProgramLog").decode(errors="replace")
            raise KernelError(f"NVRTC refuses the kernel for {architecture}: {log}")
        return _fetch(nvrtc, program, "CUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def shared_memory_limit(device: torch.device) -> int:
    """Most bytes of shared memory that one block may ask for.

    Raises:
        KernelError: the driver does not say.
    """
    limit, driver = ctypes.c_int(), _driver()
    index = device.index if device.index is not None else torch.cuda.current_device()
    _checked("cuDeviceGetAttribute", driver.cuDeviceGetAttribute(ctypes.byref(limit), SHARED_MEMORY_OPT_IN, index))
    return limit.value


class Kernel:
    """One function of a compiled module, loaded into torch's context of a device."""

    def __init__(self, cubin: bytes, name: str, *, shared_bytes: int, device: torch.device) -> None:
        """Loads it.

        Raises:
            KernelError: the driver refuses the module, or so much shared memory.
        """
        self._cubin, self._device, self._shared_bytes = cubin, device, shared_bytes
        self._module, self._function, self._driver = ctypes.c_void_p(), ctypes.c_void_p(), _driver()
        with torch.cuda.device(device):
            torch.zeros(1, device=device)  # the context
            _checked("cuModuleLoadData", self._driver.cuModuleLoadData(ctypes.byref(self._module), cubin))
            found = self._driver.cuModuleGetFunction(ctypes.byref(self._function), self._module, name.encode())
            _checked("cuModuleGetFunction", found)
            raised = self._driver.cuFuncSetAttribute(self._function, MAX_DYNAMIC_SHARED_MEMORY, shared_bytes)
            _checked("cuFuncSetAttribute", raised)

    def launch(self, blocks: int, threads: int, arguments: Sequence[Tensor | int]) -> None:
        """Starts the function on the current stream; an int becomes a C int.

        Raises:
            KernelError: the driver refuses the launch.
        """
        values = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_int(a) for a in arguments]
        pointers = (ctypes.c_void_p * len(values))(
            *(ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in values)
        )
        with torch.cuda.device(self._device):
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            status = self._driver.cuLaunchKernel(
                self._function, blocks, 1, 1, threads, 1, 1, self._shared_bytes, stream, pointers, None
            )
        _checked("cuLaunchKernel", status)


def _fetch(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _checked(what, getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    data = ctypes.create_string_buffer(size.value)
    _checked(what, getattr(nvrtc, f"nvrtcGet{what}")(program, data))
    return data.raw


def _checked(call: str, status: int) -> None:
    if status:
        raise KernelError(f"{call} failed with status {status}")


def _driver() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise KernelError(f"the driver's library is not here: {error}") from None


def _nvrtc() -> ctypes.CDLL:
    """The library that torch loads, or the one in its wheels, or the system's."""
    major = (torch.version.cuda or "").partition(".")[0] or "13"
    packages = Path(torch.__file__).parent.parent
    for name in (f"libnvrtc.so.{major}", *map(str, packages.glob(f"nvidia/*/lib/libnvrtc.so.{major}")), "libnvrtc.so"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise KernelError(
        f"there is no libnvrtc.so.{major}: install nvidia-cuda-nvrtc, which torch's wheels for CUDA depend on"
    )
