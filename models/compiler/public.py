"""The public part of a module: an ONNX file for clients, the same in torch for training, and the range of what it gives."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from ciphershift.errors import ConfigurationError, NotEquivalentError
from ciphershift.he_layers.program import IMAGE
from ciphershift.he_layers.stem import Shape, Stem
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.cut import cut
from ciphershift.models.compiler.mirror import mirrored_channels
from ciphershift.models.compiler.scales import PIXEL_LEVELS
from ciphershift.models.compiler.trace import exported, quiet, unwrapped

OPSET = 18
RANGE = "range of the public part"
"""Name of the first step behind it."""
CLIPPED = 0.998
"""Share of a channel's values that are within its range, on the calibration data."""
MOST_CHANNELS = 4096
"""With more, all channels share one range."""
SPARE = 0.05
"""Share of a sample's values that may lie outside the range, on top of twice that of the worst calibration sample."""


def stem_of(module: nn.Module, public: str, samples: Tensor, truth: Tensor) -> Stem:
    """The public part up to ``public``, as an ONNX file for one sample, with the range of its output on the calibration data.

    Args:
        module: in which models.compiler.cut has found the part.
        public: path of the last public part.
        samples: calibration data [count, ...].
        truth: what torch computes there, for the first samples.

    Raises:
        ConfigurationError: a package that writes or runs ONNX files is not installed.
        BadStemError, TooLargeError: the file is not one that a client would run.
        NotEquivalentError: onnxruntime computes something else than torch.
    """
    shape, input_shape = tuple(truth.shape[1:]), tuple(samples.shape[1:])
    stem = Stem(
        onnx=_onnx(module, public, input_shape),
        public=public,
        input_shape=input_shape,
        shape=shape,
        low=(0.0,),
        high=(1.0,),
        most_outside=1.0,
    )
    found = stem.run(samples.numpy())
    worst = float(np.abs(found[: len(truth)] - truth.numpy()).max())
    if not worst <= 1e-3 * max(float(truth.abs().max()), 1e-6):
        raise NotEquivalentError(
            f"the public part as an ONNX file gives values that differ by {worst:.3g} from torch's"
        )
    low, high = _ranges(found)
    mirror = mirrored_channels(stem)
    if mirror is not None and len(low) == len(mirror):  # a map and its mirror image become the same integers
        low, high = (
            tuple(map(float, both))
            for both in (np.minimum(low, np.array(low)[mirror]), np.maximum(high, np.array(high)[mirror]))
        )
    stem = replace(stem, low=low, high=high)
    scaled = stem.scaled(found)
    outside = ((scaled < 0) | (scaled > 1)).reshape(len(found), -1).mean(axis=1).max()
    return replace(stem, most_outside=min(1.0, round(2 * float(outside) + SPARE, 3)))


class PublicPart(nn.Module):
    """The public part in torch: images [batch, ...] from 0 to 1 -> what is encrypted, from 0 to 1 on levels; no gradient.

    Args:
        module: the whole one; it is left as it was.
        stem: its public part, as clients have it.
        batch: images at a time.
    """

    low: Tensor
    high: Tensor

    def __init__(self, module: nn.Module, stem: Stem, batch: int) -> None:
        super().__init__()
        self._graph = _until(unwrapped(module), stem.public, torch.zeros(batch, *stem.input_shape))
        for node in self._graph.graph.nodes:
            if node.target is torch.ops.aten.view.default:  # strides may be others than those of the trace
                node.target = torch.ops.aten.reshape.default
        self._graph.recompile()
        for name, ends in (("low", stem.low), ("high", stem.high)):
            values = torch.tensor(ends).reshape(-1, *[1] * (len(stem.shape) - 1))
            self.register_buffer(name, values, persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Of as many images as were stated."""
        values = (self._graph(images) - self.low) / (self.high - self.low)
        return torch.floor(values.clamp(0, 1) * PIXEL_LEVELS + 0.5) / PIXEL_LEVELS


def behind(traced: ir.TraceResult, stem: Stem) -> ir.TraceResult:
    """The secret part, which takes numbers from 0 to 1: its first step brings them back to the range of the public part's output."""
    channels = stem.shape[0]
    low, high = (torch.tensor(ends).expand(channels) for ends in (stem.low, stem.high))
    first = ir.Affine(
        name=RANGE, place=stem.public, inputs=(IMAGE,), shape=stem.shape, computes=IMAGE, scale=high - low, shift=low
    )
    operations = [
        replace(o, inputs=tuple(RANGE if name == IMAGE else name for name in o.inputs)) for o in traced.operations
    ]
    return replace(traced, operations=[first, *operations])


def _onnx(module: nn.Module, public: str, input_shape: Shape) -> bytes:
    """The part of the graph up to the cut, without names of files and lines."""
    part = unwrapped(module)
    sample = torch.zeros(1, *input_shape)
    graph_module = _until(part, public, sample)
    try:
        with quiet():
            written = torch.onnx.export(
                graph_module, (sample,), dynamo=True, opset_version=OPSET, external_data=False, verbose=False
            )
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed, which writes the public part: pip install 'ciphershift[models,stem]'"
        ) from None
    assert written is not None, "torch.onnx.export returns a program unless it is given a file"
    model = written.model_proto
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for field in ("metadata_props", "doc_string", "value_info"):
        model.graph.ClearField(field)
    model.ClearField("metadata_props")
    return bytes(model.SerializeToString())


def _until(module: nn.Module, public: str, sample: Tensor) -> fx.GraphModule:
    whole = exported(module, sample)
    end = cut(whole, public)
    assert isinstance(end, fx.Node), "the same cut was found in the module's trace"
    graph_module = whole.module()
    assert isinstance(graph_module, fx.GraphModule)
    nodes = {node.name: node for node in graph_module.graph.nodes}
    graph_module.graph.set_codegen(fx.graph.CodeGen())  # one input, and one result whatever the module returns
    nodes["output"].args = (nodes[end.name],)
    if "_guards_fn" in nodes:
        graph_module.graph.erase_node(nodes["_guards_fn"])
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()
    return graph_module


def _ranges(found: NDArray[np.float32]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Low and high end for each channel of [count, C, ...]."""
    count, channels = found.shape[:2]
    columns = np.moveaxis(found.reshape(count, channels, -1), 1, 0).reshape(channels, -1)
    if channels > MOST_CHANNELS:
        columns = columns.reshape(1, -1)
    low = np.where(columns.min(axis=1) >= 0, 0.0, np.quantile(columns, 1 - CLIPPED, axis=1))
    high = np.quantile(columns, CLIPPED, axis=1)
    high = np.where(high > low, high, low + 1.0)
    return tuple(map(float, low)), tuple(map(float, high))
