"""Orion on Lattigo: LoLA's network with squares on encrypted MNIST images. Runs in its own environment.

Parameters are the library's own for LoLA (configs/lola): N = 8192, primes of 29 and 5 x 26 bits, two special ones of 29 bits, 217 bits in
all, in the conjugate-invariant ring. It has no way to write ciphertexts or keys to bytes; the upload is computed from the ring.
"""

import argparse
import contextlib
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import orion
import orion.nn as on
import torch
from torch.utils.data import DataLoader, TensorDataset

DEGREE_LOG, PRIMES = 13, [29, 26, 26, 26, 26, 26]
CONFIG = {
    "ckks_params": {
        "LogN": DEGREE_LOG,
        "LogQ": PRIMES,
        "LogP": [29, 29],
        "LogScale": 26,
        "H": 8192,
        "RingType": "ConjugateInvariant",
    },
    "orion": {"margin": 2, "embedding_method": "hybrid", "backend": "lattigo", "fuse_modules": True, "debug": False},
}
FIT_IMAGES = 1000


class Lola(on.Module):
    """A convolution of 5 maps, a square, 100 units, a square, 10 units; batch norms are folded into the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = on.Conv2d(1, 5, kernel_size=5, padding=2, stride=2)
        self.act1 = on.Quad()
        self.flatten = on.Flatten()
        self.fc1 = on.Linear(980, 100)
        self.act2 = on.Quad()
        self.fc2 = on.Linear(100, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 1, 28, 28] -> [B, 10], in the clear or encrypted."""
        return self.fc2(self.act2(self.fc1(self.flatten(self.act1(self.conv1(x))))))


def main() -> None:
    """Measures the network."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="with train.npz, test.npz and lola.npz")
    parser.add_argument("count", type=int, help="images to encrypt")
    given = parser.parse_args()
    test, train = np.load(given.folder / "test.npz"), np.load(given.folder / "train.npz")
    images = torch.tensor(test["images"] / 255, dtype=torch.float32)
    with contextlib.redirect_stdout(sys.stderr):  # the library talks
        started = time.perf_counter()
        orion.init_scheme(CONFIG)
        keygen = time.perf_counter() - started
        network = Lola()
        weights = np.load(given.folder / "lola.npz")
        names = {"conv": "conv1", "dense": "fc1", "head": "fc2"}
        state = {
            f"{names[layer]}.{kind}": torch.tensor(weights[f"{layer}.{kind}"])
            for layer in names
            for kind in ("weight", "bias")
        }
        network.load_state_dict(state, strict=False)
        network.eval()
        clear = network(images).argmax(dim=1).numpy()
        fit = torch.tensor(train["images"][:FIT_IMAGES] / 255, dtype=torch.float32)
        orion.fit(network, DataLoader(TensorDataset(fit, torch.zeros(len(fit))), batch_size=1))
        started = time.perf_counter()
        level = orion.compile(network)
        keygen += time.perf_counter() - started  # rotation keys are made here, with the plaintexts
        network.he()
        seconds, right, agree = [], 0, 0
        for number in range(given.count):
            encrypted = orion.encrypt(orion.encode(images[number : number + 1], level))
            started = time.perf_counter()
            answer = network(encrypted)
            seconds.append(time.perf_counter() - started)
            digit = int(answer.decrypt().decode().flatten()[:10].argmax())
            right, agree = right + int(digit == test["labels"][number]), agree + int(digit == clear[number])
    low, median, high = np.quantile(seconds, [0.1, 0.5, 0.9])
    print(  # noqa: T201
        json.dumps(
            {
                "system": "Orion, LoLA",
                "version": version("orion-fhe"),
                "activation": "square",
                "topology": "conv 5 x 5 x 5 stride 2, 100, 10",
                "settings": "CKKS (Lattigo), N = 8192, primes of 29, 5 x 26 and 2 x 29 bits, conjugate-invariant ring",
                "lookup_error_4bit": None,
                "accuracy_clear": round(float((clear == test["labels"]).mean()), 4),
                "accuracy_encrypted": right / given.count,
                "accuracy_encrypted_n": given.count,
                "agree_with_clear": agree,
                "seconds_per_image": round(float(median), 4),
                "p10_s": round(float(low), 4),
                "p90_s": round(float(high), 4),
                "keygen_s": round(keygen, 3),
                "upload_bytes": 2 * (1 << DEGREE_LOG) * (level + 1) * 8,
                "key_bytes": None,
                "security_bits": 128,
            }
        )
    )


if __name__ == "__main__":
    main()
