"""A step of a training as a CUDA graph: some hundred small kernels that one call starts."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

WARM_UP = 3
"""Steps before a capture, in which libraries choose their kernels and optimizers make their state."""
IN_FLIGHT = 2
"""Steps that may be under way on the GPU before the next one is started."""


class Captured:
    """``step``, a function without arguments that reads and writes tensors which stay where they are; run it by ``run``.

    On a processor it is called; on a GPU captured after some calls, and replayed from then on, inside ``stream_of``.
    """

    def __init__(self, step: Callable[[], None], device: torch.device) -> None:
        self._step, self._on_gpu = step, device.type == "cuda"
        self._under_way: deque[torch.cuda.Event] = deque()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._calls = 0

    def forget(self) -> None:
        """The step has become another one, which must be captured anew."""
        while self._under_way:
            self._under_way.popleft().synchronize()
        self._graph, self._calls = None, 0

    def run(self) -> None:
        """One step; returns before the GPU is through with it."""
        if not self._on_gpu:
            self._step()
            return
        if self._graph is None and self._calls >= WARM_UP:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
                self._step()
            self._graph = graph
        if self._graph is None:
            self._calls += 1
            self._step()
        else:
            self._graph.replay()
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        self._under_way.append(event)
        if len(self._under_way) > IN_FLIGHT:
            self._under_way.popleft().synchronize()


@contextmanager
def stream_of(device: torch.device) -> Iterator[None]:
    """On a GPU a stream in which steps can be captured, which is not the first one."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)
