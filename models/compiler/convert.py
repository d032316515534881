"""From a float nn.Module to a trainable network of power-of-two weights that computes nearly the same, scaled by calibration data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ciphershift.errors import (
    BadCalibrationError,
    BadStemError,
    ConfigurationError,
    NotEquivalentError,
    UnsupportedLayerError,
)
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.layers import Shape
from ciphershift.he_layers.program import IMAGE
from ciphershift.he_layers.simulate import CircuitNoise
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.apart import drowned, drowned_pools, with_input_apart, with_pools_apart
from ciphershift.models.compiler.budget import Budget, Choice, within
from ciphershift.models.compiler.calibration import Calibration
from ciphershift.models.compiler.drives import MAX_OUTSIDE, ROUNDING, Drives
from ciphershift.models.compiler.equivalence import NOISE, require_heard
from ciphershift.models.compiler.fitting import require_finite
from ciphershift.models.compiler.graph import Wiring
from ciphershift.models.compiler.head import HEAD
from ciphershift.models.compiler.inputs import Inputs
from ciphershift.models.compiler.judge import SEED, Judge, targets_of
from ciphershift.models.compiler.network import Network, weighted
from ciphershift.models.compiler.onnx_graph import OnnxModule, as_module
from ciphershift.models.compiler.public import PublicPart, behind, stem_of
from ciphershift.models.compiler.reconstruct import Reconstruction
from ciphershift.models.compiler.scales import REFINEMENT
from ciphershift.models.compiler.simplify import simplify
from ciphershift.models.compiler.ties import ties
from ciphershift.models.compiler.trace import BATCH, Trace, evaluation_mode, trace
from ciphershift.models.nn.activations import per_channel
from ciphershift.models.training.metrics import Targets
from ciphershift.protocol.sequences import are_padded

MAX_LEVELS, MAX_EXPONENTS = 255, 7
COMPARED = 10 * BATCH
"""Calibration samples on which every step is held against the module's."""

Validation = tuple[Tensor | NDArray[np.floating], Targets]


@dataclass(frozen=True, kw_only=True, slots=True)
class Unrounded:
    """A network that computes what the module does, in evaluation mode, and what is needed to round it.

    Attributes:
        noise: of the circuit, which the network has not yet.
        drives: choose how far sums reach on the torus.
        integers: calibration data as the network takes them, then inverted ones and noise, [count, ...].
        units: by first of tied activations: the module's value of one level, [states].
    """

    network: Network
    noise: CircuitNoise
    drives: Drives
    integers: Tensor
    units: dict[str, Tensor]


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
    max_seconds: float | None = None,
    max_drop: float | None = None,
    threads: int = 1,
    validation: Validation | None = None,
) -> Network:
    """A trainable network with the module's weights as powers of two, activations on integer levels, and the circuit's noise.

    Batch norms are folded, max-pools are moved before the activations that they follow; the module itself is left as it is. Before anything
    is rounded, every step is held against the module's own on some of the calibration data. Then weights are rounded so that each layer's
    sums stay near the module's on these data, with what rounding and noise did to the layers before (models.compiler.reconstruct).
    The result is in training mode, quantized, with the noise that the parameter set predicts for each of its layers; train it on with
    models.training.loop.fine_tune. The same module, data and choices give the same network.

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
        max_outside: share of a layer's sums that may leave the window of its look-up, which fixes the layer's scale on the torus; much
            more than the default clips so much that the conversion is warned of, or refused.
        max_seconds: that the server may take for one sample, predicted for ``threads`` threads of this machine. With one of these limits
            parameter set, levels and exponents are the first that keep to both; those given are tried first.
        max_drop: points (hundredths of accuracy, or of R²) that the conversion may lose.
        threads: see ``max_seconds``.
        validation: what ``max_drop`` is measured on: inputs as of ``calibration_data``, and classes (int64) or numbers (float64).
            Without it, the calibration data, and how far answers are from the module's.

    Raises:
        BadCalibrationError: the calibration data are too few, of another type or shape, or outside [0, 1], or a step has no
            finite value for them.
        UnknownParamsError, ConfigurationError: there is no such parameter set, or another choice is out of its range.
        UnsupportedLayerError: lists everything that models.cost_report lists.
        BadStemError, TooLargeError, ConfigurationError: see models.compiler.public.
        UnreadableModuleError: the ONNX file cannot be read.
        NotEquivalentError: a step of the converted network computes something else than the module's, or what its look-ups clip
            leaves nothing of the outputs (models.compiler.equivalence.require_heard).
        OverBudgetError: says by how much the limits are missed.
    """
    read = as_module(module)
    inputs = Inputs() if inputs is None else inputs

    outputs: dict[Network, tuple[Tensor, Tensor]] = {}

    def make(choice: Choice) -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            unrounded = before_rounding(
                read,
                calibration_data,
                params=choice.params,
                levels=choice.levels,
                exponents=choice.exponents,
                max_outside=max_outside,
                public=public,
                inputs=inputs,
            )
            with torch.no_grad():
                rounding = Reconstruction(unrounded.network, unrounded.noise, unrounded.drives)
                outputs[unrounded.network] = rounding.run(unrounded.integers)
        return unrounded.network.train()

    def heard(network: Network) -> Network:
        """Of those that were made, the one that is taken: the others may have been lost in noise."""
        require_heard(network.wiring.steps[-1].place, *outputs[network], NOISE)
        return network

    first = Choice(params=params, exponents=exponents, levels=levels)
    if max_seconds is None and max_drop is None:
        return heard(make(first))
    samples, targets = _validation(calibration_data, validation, inputs)
    judge = Judge(module=read, samples=samples, targets=targets)
    budget = Budget(max_seconds=max_seconds, max_drop=max_drop, threads=threads)
    return heard(within(budget, first, make, judge.drop))


def before_rounding(
    module: nn.Module | Path | str,
    calibration_data: Tensor | NDArray[np.floating],
    *,
    params: str = parameter_sets.DEFAULT,
    levels: int = 31,
    exponents: int = 4,
    max_outside: float = MAX_OUTSIDE,
    public: str | None = None,
    inputs: Inputs | None = None,
) -> Unrounded:
    """The first half of ``convert``, with the same arguments and errors."""
    for what, value, most in (("levels", levels, MAX_LEVELS), ("exponents", exponents, MAX_EXPONENTS)):
        if not 1 <= value <= most:
            raise ConfigurationError(f"{what}={value}; give 1 to {most}")
    if not 0 < max_outside < 1:
        raise ConfigurationError(f"max_outside={max_outside}; a share between 0 and 1")
    module = as_module(module)
    inputs = Inputs() if inputs is None else inputs
    samples = _spread_first(_checked(calibration_data, inputs))
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
            "a public part takes numbers from 0 to 1: leave out the inputs, and put the normalization into the part; bring other data than "
            "pixels to that range before they are sent, (x - low) / (high - low), and let the part begin with x * (high - low) + low"
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
        outputs = [truth[name] for name in simple.returned.values()]
        truth[HEAD] = torch.cat([output.reshape(len(output), -1) for output in outputs], dim=1)
    options: dict[str, Any] = {"levels": levels, "exponents": exponents, "inputs": inputs, "parts": simple.parts}
    noise = _noise(params, simple.operations)

    def calibrated(operations: list[ir.Operation]) -> Unrounded:
        network = Network(operations, shape, **options, ties=ties(operations, shape, inputs))
        network.stem, network.params = stem, params
        network.public_part = None if stem is None else partial(PublicPart, module, stem)
        network.eval()
        drives = Drives(network, noise, max_outside, len(samples))
        integers = _with_others(network, samples)
        with torch.no_grad():
            calibration = Calibration(network, drives, truth)
            calibration.run(operations, integers)
        return Unrounded(network=network, noise=noise, drives=drives, integers=integers, units=calibration.results)

    operations = simple.operations
    found = calibrated(operations)
    if pools := drowned_pools(found.network, noise, found.drives.pooled):
        operations = with_pools_apart(operations, pools)
        found = calibrated(operations)
    if drowned(found.network, noise):
        found = calibrated(with_input_apart(operations, shape))
    with torch.no_grad():
        found.drives.hold()
        found.network.contractive = _contractive(found.network, found.units)
    return found


def _noise(params: str, operations: Sequence[ir.Operation]) -> CircuitNoise:
    """Of the network's circuit, where answers are refined with what that leaves of an answer's noise."""
    noise = CircuitNoise.predicted(parameter_sets.get(params), products=not ir.has_lookups(operations))
    return noise if ir.has_lookups(operations) else replace(noise, packing=noise.packing / REFINEMENT)


def _contractive(network: Network, units: dict[str, Tensor]) -> bool:
    """Whether all recurrent layers have a norm below one, in levels or in the module's values; sets ``state_weights`` of the latter.

    Levels come first: where a level has the same value in every state, both norms are the same but for rounding.
    """
    gains = network.gains()
    for name, activation in network.wiring.recurrent.items():
        weights = units[activation] / units[activation].max()
        if not _forgets(gains[name]) and _forgets(weighted(gains[name], weights)):
            network.state_weights[name] = weights
    return bool(gains) and all(map(_forgets, network.gains().values()))


def _forgets(gain: Tensor) -> bool:
    return float(torch.linalg.matrix_norm(gain, 2)) < 1


def _validation(
    calibration_data: Tensor | NDArray[np.floating], validation: Validation | None, inputs: Inputs
) -> tuple[Tensor, Targets | None]:
    """Samples and targets of a Judge. Raises BadCalibrationError."""
    if validation is None:
        return _checked(calibration_data, inputs), None
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise BadCalibrationError("the validation data are no pair; give (inputs, targets)")
    samples = _checked(validation[0], inputs)
    return samples, targets_of(validation[1], len(samples))


def _spread_first(samples: Tensor) -> Tensor:
    """The same samples; the first ones, which are compared with the module, from all over them: data may be sorted."""
    count = len(samples)
    first = torch.linspace(0, count - 1, min(COMPARED, count)).round().long()
    others = torch.ones(count, dtype=torch.bool)
    others[first] = False
    return torch.cat([samples[first], samples[others]])


def _with_others(network: Network, samples: Tensor) -> Tensor:
    """Samples as the module takes them as the network's integers; then some inverted, and as many of noise."""
    steps, levels = network.steps_of(samples), network.inputs.levels
    some = steps[: -(-len(steps) // 4)]
    noise = torch.rand(some.shape, generator=torch.Generator().manual_seed(SEED)) * levels
    return torch.cat([steps, levels - some, noise]) + per_channel(network.lowest, steps)


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
    try:
        samples = torch.as_tensor(np.ascontiguousarray(data) if isinstance(data, np.ndarray) else data)
    except (TypeError, ValueError, RuntimeError):
        raise BadCalibrationError(
            f"the calibration data are {type(data).__name__}; give an array or a tensor, [count, ...], such as "
            "torch.cat([x for x, _ in loader]) of a DataLoader"
        ) from None
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
    if inputs.sequences and not are_padded(samples.numpy()):
        raise BadCalibrationError(
            f"the calibration data, {list(samples.shape)}, are no padded sequences [count, features and presence, steps]: "
            "ciphershift.protocol.sequences.padded makes them"
        )
    low, high = float(samples.min()), float(samples.max())
    if inputs.encoding is not None:
        inputs.encoding.integers(samples.numpy(), inputs.levels)
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
        leaves = pytree.tree_leaves(module(samples.clone()))  # it may change its input
    results = [leaf.float() for leaf in leaves if isinstance(leaf, Tensor)]
    for result, expected in zip(results, traced, strict=True):
        worst = float((result - expected).abs().max()) if result.shape == expected.shape else float("inf")
        if not worst <= 1e-3 * max(float(expected.abs().max()), 1e-6):
            raise NotEquivalentError(
                f"the module gives results that differ by {worst:.3g} from those of its traced steps; "
                "make it compute the same every time, for batches of any size"
            )
