"""Concrete ML: the tutorial's topology with exact ReLU, quantized after training, on encrypted MNIST images. Runs in its own environment.

Once with the library's default error rate of a look-up, and once for each rate that is asked for.
"""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from concrete.ml.torch.compile import compile_torch_model
from torch import nn

CALIBRATION_IMAGES = 500
BITS = {"model_inputs": 4, "op_inputs": 4, "op_weights": 4, "model_outputs": 8}
ROUNDING = {"n_bits": 6, "method": "approximate"}


def network(folder: Path) -> nn.Module:
    """Float weights with ReLU, batch norms folded."""
    weights = {name: torch.tensor(values) for name, values in np.load(folder / "relu.npz").items()}
    module = nn.Sequential()
    module.add_module("conv", nn.Conv2d(1, 4, 7, stride=3))
    module.add_module("relu1", nn.ReLU())
    module.add_module("flatten", nn.Flatten())
    module.add_module("dense", nn.Linear(256, 64))
    module.add_module("relu2", nn.ReLU())
    module.add_module("head", nn.Linear(64, 10))
    module.load_state_dict(weights)
    return module.eval()


def main() -> None:
    """Measures the network at each error rate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="with train.npz, test.npz and the network's weights")
    parser.add_argument("count", type=int, help="images to encrypt")
    parser.add_argument("--p-error", type=float, action="append", default=[])
    given = parser.parse_args()
    test, train = np.load(given.folder / "test.npz"), np.load(given.folder / "train.npz")
    images, labels = (test["images"] / 255).astype(np.float32), test["labels"]
    calibration = torch.tensor(train["images"][:CALIBRATION_IMAGES] / 255, dtype=torch.float32)
    for p_error in [None, *given.p_error]:
        options = {} if p_error is None else {"p_error": p_error}
        module = compile_torch_model(
            network(given.folder), calibration, n_bits=BITS, rounding_threshold_bits=ROUNDING, **options
        )
        circuit = module.fhe_circuit
        clear = module.forward(images, fhe="disable").argmax(axis=1)
        started = time.perf_counter()
        circuit.keygen()
        keygen = time.perf_counter() - started
        seconds, right, agree, upload = [], 0, 0, 0
        for number in range(given.count):
            quantized = module.quantize_input(images[number : number + 1])
            encrypted = circuit.encrypt(quantized)
            upload = len(encrypted.serialize())
            started = time.perf_counter()
            answer = circuit.run(encrypted)
            seconds.append(time.perf_counter() - started)
            digit = int(module.dequantize_output(circuit.decrypt(answer)).argmax())
            right, agree = right + int(digit == labels[number]), agree + int(digit == clear[number])
        low, median, high = np.quantile(seconds, [0.1, 0.5, 0.9])
        rate = "default error" if p_error is None else f"p_error {p_error:g}"
        print(  # noqa: T201
            json.dumps(
                {
                    "system": f"Concrete ML, {rate}",
                    "version": version("concrete-ml"),
                    "activation": "look-up",
                    "topology": "conv 4 x 7 x 7 stride 3, 64, 10",
                    "settings": f"quantized after training, bits {BITS}, rounding to 6 bits, approximate; {rate}",
                    "lookup_error_4bit": circuit.p_error,
                    "accuracy_clear": round(float((clear == labels).mean()), 4),
                    "accuracy_encrypted": right / given.count,
                    "accuracy_encrypted_n": given.count,
                    "agree_with_clear": agree,
                    "seconds_per_image": round(float(median), 4),
                    "p10_s": round(float(low), 4),
                    "p90_s": round(float(high), 4),
                    "keygen_s": round(keygen, 3),
                    "upload_bytes": upload,
                    "key_bytes": len(circuit.client.evaluation_keys.serialize()),
                    "security_bits": 128,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
