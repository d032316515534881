"""CUDA graphs of the step loop: thousands of small launches, captured once for each key and batch size and replayed as one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.gpu import blind_rotate
from ciphershift.he_layers.gpu.fourier import Fourier
from ciphershift.he_layers.gpu.steps import StepShape


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    acc: Tensor
    switched: Tensor


class StepGraphs:
    """The step loop of one key. On the CPU it runs as it is."""

    def __init__(self, key: Tensor, params: ParameterSet, fourier: Fourier) -> None:
        """Args: key: of blind_rotate.key_for_steps."""
        self._key, self._params, self._fourier = key, params, fourier
        self._captured: dict[int, _Captured] = {}

    def run(self, acc: Tensor, switched: Tensor) -> None:
        """All steps on the accumulators in place, see blind_rotate.run_steps."""
        if acc.device.type == "cpu":
            blind_rotate.run_steps(acc, switched, self._key, self._params, self._fourier)
            return
        count = len(acc)
        size = 1 << (count - 1).bit_length()  # few graphs, and at most half of one idle
        if size not in self._captured:
            self._captured[size] = self._capture(size, acc.device)
        captured = self._captured[size]
        captured.acc[:count].copy_(acc)
        captured.switched[:count].copy_(switched)
        captured.graph.replay()
        acc.copy_(captured.acc[:count])

    def _capture(self, size: int, device: torch.device) -> _Captured:
        shape = StepShape.of(self._params)
        acc = torch.zeros((size, shape.polynomials, self._fourier.points), dtype=torch.complex128, device=device)
        switched = torch.zeros((size, shape.steps * shape.bits + 1), dtype=torch.int32, device=device)
        aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):  # plans and workspaces, which a capture must find ready
            blind_rotate.run_steps(acc, switched, self._key, self._params, self._fourier)
        torch.cuda.current_stream(device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            blind_rotate.run_steps(acc, switched, self._key, self._params, self._fourier)
        return _Captured(graph, acc, switched)
