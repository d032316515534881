"""From a float nn.Module to a trainable network of power-of-two weights that computes nearly the same, scaled by calibration data."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ciphershift.errors import BadCalibrationError, BadStemError, NotEquivalentError, UnsupportedLayerError
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.layers import Shape
from ciphershift.he_layers.program import IMAGE
from ciphershift.he_layers.simulate import CircuitNoise
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.calibration import MAX_OUTSIDE, ROUNDING, Calibration
from ciphershift.models.compiler.fitting import require_finite
from ciphershift.models.compiler.graph import Wiring
from ciphershift.models.compiler.head import HEAD
from ciphershift.models.compiler.inputs import Inputs
from ciphershift.models.compiler.network import Network
from ciphershift.models.compiler.onnx_graph import OnnxModule, as_module
from ciphershift.models.compiler.public import behind, stem_of
from ciphershift.models.compiler.scales import PIXEL_LEVELS
from ciphershift.models.compiler.simplify import simplify
from ciphershift.models.compiler.trace import BATCH, Trace, evaluation_mode, trace

COMPARED = 10 * BATCH
"""Calibration samples on which every step is held against the module's."""


def convert(
    module: nn.Module | Path | str,
    calibration_data: Tensor | NDArray[np.floating],
    *,
    params: str = parameter_sets.DEFAULT,
    levels: int = 31,
    exponents: int = 4,
    max_outside: float = MAX_OUTSIDE,
    public: str | None = None,
    inputs: Inputs | None = None,
) -> Network:
    """A trainable network with the module's weights as powers of two, activations on integer levels, and the circuit's noise.

    Batch norms are folded, max-pools are moved before the activations that they follow; the module itself is left as it is. Before anything
    is rounded, every step is held against the module's own on some of the calibration data. The result is in training mode, quantized, with
    the noise that the parameter set predicts for each of its layers; train it on with models.training.loop.fine_tune.

    Args:
        module: made of the operations of docs/networks.md, for inputs in [0, 1], returning logits; or the path of an ONNX file.
        calibration_data: some hundred inputs [count, ...] of the kind that the network will see: floating-point numbers in [0, 1].
        params: name of the parameter set.
        levels: greatest integer of an activation.
        exponents: powers of two that a weight may take: 1, 2, .., 2^(exponents - 1).
        public: path of a part of the module ("features.0"): up to its end the network is public, an ONNX file that clients run before
            they encrypt. The result is the part behind it, with the other one as its ``stem``.
        inputs: what clients will send, if that is anything but pixels in [0, 1]: an encoding (models.compiler.inputs.fit_encoding), and the
            mean and deviation of the normalization that the module expects. The calibration data are then raw values.
        max_outside: share of a layer's sums that may leave the window of its look-up, which fixes the layer's scale on the torus.

    Raises:
        BadCalibrationError: the calibration data are too few, of another type or shape, or outside [0, 1], or a step has no
            finite value for them.
        UnsupportedLayerError: lists everything that models.cost_report lists.
        BadStemError, TooLargeError, ConfigurationError: see models.compiler.public.
        UnreadableModuleError: the ONNX file cannot be read.
        NotEquivalentError: a step of the converted network computes something else than the module's.
    """
    module = as_module(module)
    inputs = Inputs() if inputs is None else inputs
    samples = _checked(calibration_data, inputs)
    shape = tuple(samples.shape[1:])
    read = trace(module, shape, public)
    if not isinstance(read, Trace):
        raise _refusal(read)
    if read.result.findings:
        raise _refusal(read.result.findings)
    if isinstance(module, OnnxModule):
        module.require_same(samples[:COMPARED])
    traced, stem = read.result, None
    if public and inputs != Inputs():
        raise BadStemError(
            "a public part takes pixels from 0 to 1; put the normalization into it, and leave out the inputs"
        )
    truth = read.values(samples[:COMPARED])
    for operation in read.result.operations:
        require_finite(operation, truth.get(operation.name, torch.zeros(())))
    returned = [truth[name] for name in read.result.returned.values()]
    _require_reproducible(module, samples[: len(returned[0])], returned)
    if public:
        stem = stem_of(module, public, samples, truth[IMAGE])
        traced, shape = behind(traced, stem), stem.shape
        samples = torch.tensor(stem.scaled(stem.run(samples.numpy())), dtype=torch.float32)
    _, zero = inputs.scale(shape[0])
    simple = simplify(traced, shape, moved=bool(zero.any()))
    if simple.findings:
        raise _refusal(simple.findings)
    simple.operations = _with_free_units(simple.operations, shape)
    if simple.operations[-1].computes == HEAD:
        truth[HEAD] = torch.cat([truth[name].flatten(1) for name in simple.returned.values()], dim=1)
    options: dict[str, Any] = {"levels": levels, "exponents": exponents, "inputs": inputs, "parts": simple.parts}
    network = Network(simple.operations, shape, **options)
    noise = CircuitNoise.predicted(parameter_sets.get(params))
    network.stem = stem
    network.eval()
    with torch.no_grad():
        Calibration(network, noise, max_outside, truth).run(simple.operations, samples)
    network.train()
    network.quantize(True)
    network.noise = noise
    return network


def _with_free_units(operations: list[ir.Operation], shape: Shape) -> list[ir.Operation]:
    """The operations, where a clipped ramp whose unit a sum chooses is a LookUp: its top would have to be where it clips, too."""
    powers = Wiring(operations, shape).powers
    return [
        ir.LookUp(
            name=o.name,
            place=o.place,
            inputs=o.inputs,
            shape=o.shape,
            computes=o.computes,
            function=partial(torch.clamp, min=o.low, max=o.high),
            rises=True,
        )
        if isinstance(o, ir.ReLU) and o.high is not None and o.name in powers and (o.low, o.high) != (0.0, 1.0)
        else o
        for o in operations
    ]


def _refusal(findings: Sequence[ir.Finding]) -> UnsupportedLayerError:
    return UnsupportedLayerError("this network cannot be converted: " + "; ".join(map(str, findings)))


def _checked(data: Tensor | NDArray[np.floating], inputs: Inputs) -> Tensor:
    """Calibration data as float32, as the module takes them. Raises BadCalibrationError, or OutOfLevelsError outside of the encoding."""
    samples = torch.as_tensor(data)
    if not samples.is_floating_point():
        raise BadCalibrationError(
            f"the calibration data are of type {samples.dtype}; give floating-point numbers from 0 to 1 (pixels / 255)"
        )
    if samples.dim() < 2 or samples.dim() > 4 or len(samples) < BATCH:
        raise BadCalibrationError(
            f"the calibration data have shape {list(samples.shape)}; give at least {BATCH} samples, [count, C, H, W], "
            "[count, C, L] or [count, features], better some hundred"
        )
    samples = samples.detach().float()
    if wrong := int((~torch.isfinite(samples)).sum()):
        raise BadCalibrationError(
            f"the calibration data hold {wrong} values that are NaN or infinite; leave those samples out"
        )
    low, high = float(samples.min()), float(samples.max())
    if inputs.encoding is not None:
        inputs.encoding.integers(samples.numpy(), PIXEL_LEVELS)
    elif low < -ROUNDING or high > 1 + ROUNDING:
        raise BadCalibrationError(
            f"the calibration data lie in {low:.3g} to {high:.3g}; the network takes inputs from 0 to 1: put the normalization "
            "into the module (a batch norm, or constants, as its first step) and give the data as they are before it; for other data than "
            "images say what clients send: inputs=Inputs(encoding=fit_encoding(data))"
        )
    if low == high:
        raise BadCalibrationError(
            f"all calibration data are {low:.3g}; give samples of the kind that the network will see"
        )
    return inputs.to_module(samples)


def _require_reproducible(module: nn.Module, samples: Tensor, traced: list[Tensor]) -> None:
    """Raises NotEquivalentError if the module, called as it is, gives something else than what was read of it."""
    with evaluation_mode(module), torch.no_grad():
        results = [leaf for leaf in pytree.tree_leaves(module(samples)) if isinstance(leaf, Tensor)]
    for result, expected in zip(results, traced, strict=True):
        worst = float((result - expected).abs().max()) if result.shape == expected.shape else float("inf")
        if not worst <= 1e-3 * max(float(expected.abs().max()), 1e-6):
            raise NotEquivalentError(
                f"the module gives results that differ by {worst:.3g} from those of its traced steps; "
                "make it compute the same every time, for batches of any size"
            )
