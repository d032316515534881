"""Concrete ML: the shape of its published ternary VGG for CIFAR-10 on encrypted images. Runs in its own environment.

Shape and settings are those of use_case_examples/cifar/cifar_brevitas_training: six convolutions of 3 x 3 without padding, two average
pools, three linear layers; weights and activations of 2 bits, pixels of 8; look-ups of 6 bits by approximate rounding, p_error 0.01. The
repository holds the trained weights outside of git, so these are random, from the initial distribution that its training starts with, with
batch norms that saw some training images. They have the same widths and the same number of look-ups; the accuracy is the published one.

Each step is written to the standard error with its seconds and the peak memory so far, so that a run that is ended tells how far it came.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from brevitas.core.bit_width import BitWidthImplType
from brevitas.core.quant import QuantType
from brevitas.core.restrict_val import FloatToIntImplType, RestrictValueType
from brevitas.core.scaling import ScalingImplType
from brevitas.core.zero_point import ZeroZeroPoint
from brevitas.inject import ExtendedInjector
from brevitas.nn import QuantConv2d, QuantIdentity, QuantLinear
from brevitas.quant.solver import ActQuantSolver, WeightQuantSolver
from concrete.fhe import Exactness
from concrete.ml.torch.compile import compile_brevitas_qat_model
from torch import nn

CONVOLUTIONS = ((64, False), (64, True), (128, False), (128, True), (256, False), (256, False))
"""Channels, and whether a pool of 2 x 2 follows."""
UNITS, CLASSES = (512, 512), 10
PUBLISHED_ACCURACY = 0.86
"""With 6 bits, of its README."""
ROUNDING = {"n_bits": 6, "method": Exactness.APPROXIMATE}
P_ERROR = 0.01
NORM_IMAGES, CALIBRATION_IMAGES = 500, 100
GIGA = 1e9


class Fixed(ExtendedInjector):
    """Signed integers of a given width with a fixed scale, symmetric about zero."""

    quant_type = QuantType.INT
    bit_width_impl_type = BitWidthImplType.CONST
    scaling_impl_type = ScalingImplType.CONST
    restrict_scaling_type = RestrictValueType.FP
    zero_point_impl = ZeroZeroPoint
    float_to_int_impl_type = FloatToIntImplType.ROUND
    scaling_per_output_channel = False
    narrow_range = True
    signed = True


class Weight(Fixed, WeightQuantSolver):
    """Of a layer: -1, 0 or 1."""

    scaling_const = 1.0


class Activation(Fixed, ActQuantSolver):
    """Of a layer: -1, 0 or 1."""

    min_val = -1.0
    max_val = 1.0


def network() -> nn.Sequential:
    """Convolution, batch norm and activation; an average pool has an activation of its own; the last layer has only a norm."""
    pixels = QuantIdentity(
        act_quant=Activation,
        return_quant_tensor=True,
        bit_width=8,
        max_val=1.0 - 2.0**-7,
        narrow_range=False,
        restrict_scaling_type=RestrictValueType.POWER_OF_TWO,
    )
    ternary = {"weight_quant": Weight, "weight_bit_width": 2, "bias": False}
    layers, channels = [pixels], 3
    for maps, pooled in CONVOLUTIONS:
        layers += [QuantConv2d(channels, maps, 3, **ternary), nn.BatchNorm2d(maps, eps=1e-4, momentum=None), _act()]
        layers += [nn.AvgPool2d(2), _act()] if pooled else []
        channels = maps
    layers.append(nn.Flatten())
    for units in UNITS:
        layers += [QuantLinear(channels, units, **ternary), nn.BatchNorm1d(units, eps=1e-4, momentum=None), _act()]
        channels = units
    module = nn.Sequential(*layers, QuantLinear(channels, CLASSES, **ternary))
    for layer in module:
        if isinstance(layer, QuantConv2d | QuantLinear):
            nn.init.uniform_(layer.weight.data, -1, 1)
    return module


def _act() -> QuantIdentity:
    return QuantIdentity(act_quant=Activation, bit_width=2)


@contextmanager
def step(name: str, took: dict[str, float]) -> Iterator[None]:
    """Notes a step's seconds and writes them to the standard error."""
    started = time.perf_counter()
    print(name, "...", file=sys.stderr, flush=True)  # noqa: T201
    yield
    took[name] = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{name}: {took[name]:.1f} s, peak {peak / GIGA:.2f} GB", file=sys.stderr, flush=True)  # noqa: T201


def main() -> None:
    """Measures the network."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "folder", type=Path, help="with cifar10.npz: images and labels of the test set, training images"
    )
    parser.add_argument("count", type=int, help="images to encrypt")
    given = parser.parse_args()
    data = np.load(given.folder / "cifar10.npz")
    images, training = (data[name].astype(np.float32) / 127.5 - 1 for name in ("images", "training"))
    torch.manual_seed(1)
    module, took = network(), {}
    with step("batch norms", took), torch.no_grad():
        module.train()(torch.tensor(training[:NORM_IMAGES]))
    with step("compilation", took):
        compiled = compile_brevitas_qat_model(
            module.eval(),
            torch.tensor(images[:CALIBRATION_IMAGES]),
            rounding_threshold_bits=ROUNDING,
            p_error=P_ERROR,
            device="cpu",
        )
    circuit = compiled.fhe_circuit
    print(  # noqa: T201
        f"keys: {circuit.size_of_bootstrap_keys + circuit.size_of_keyswitch_keys} bytes, "
        f"look-ups: {circuit.programmable_bootstrap_count}, widest: {circuit.graph.maximum_integer_bit_width()} bits",
        file=sys.stderr,
        flush=True,
    )
    with step("key generation", took):
        circuit.keygen()
    key_bytes = len(circuit.client.evaluation_keys.serialize())
    seconds, agree, upload = [], 0, 0
    for number in range(given.count):
        quantized = compiled.quantize_input(images[number : number + 1])
        clear = compiled.dequantize_output(circuit.simulate(quantized))
        with step("encryption", took):
            encrypted = circuit.encrypt(quantized)
        upload = len(encrypted.serialize())
        with step("evaluation", took):
            answer = circuit.run(encrypted)
        seconds.append(took["evaluation"])
        logits = compiled.dequantize_output(circuit.decrypt(answer))
        agree += int(logits.argmax() == clear.argmax())
    low, median, high = np.quantile(seconds, [0.1, 0.5, 0.9])
    print(  # noqa: T201
        json.dumps(
            {
                "system": "Concrete ML, ternary VGG",
                "version": version("concrete-ml"),
                "data": "cifar10",
                "activation": "look-up",
                "topology": "conv 64, 64, pool, 128, 128, pool, 256, 256, of 3 x 3 without padding; 512, 512, 10",
                "settings": "weights and activations of 2 bits, rounding to 6 bits, approximate; p_error 0.01 (its example's)",
                "weights": "random",
                "lookup_error_4bit": None,
                "lookup_error": circuit.p_error,
                "lookups": circuit.programmable_bootstrap_count,
                "accuracy_clear": None,
                "accuracy_published": PUBLISHED_ACCURACY,
                "accuracy_encrypted_n": given.count,
                "agree_with_clear": agree,
                "seconds_per_image": round(float(median), 4),
                "p10_s": round(float(low), 4),
                "p90_s": round(float(high), 4),
                "compile_s": round(took["compilation"], 3),
                "keygen_s": round(took["key generation"], 3),
                "upload_bytes": upload,
                "key_bytes": key_bytes,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "security_bits": 128,
            }
        )
    )


if __name__ == "__main__":
    main()
