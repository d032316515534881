"""TenSEAL's tutorial network on encrypted MNIST images. Runs in its own environment.

A convolution of 4 maps 7 x 7 with stride 3, an activation, 64 units, the same activation, 10 units; context as in the tutorial (N = 8192,
six 26-bit primes between two of 31 bits). A polynomial of degree 2 is c2 (x + a)^2 + b: its constants go into the layers around it, so
that it costs what the tutorial's square costs.
"""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tenseal as ts

KERNEL, STRIDE = 7, 3
SCALE_BITS = 26
COEFFICIENT_BITS = [31, *[SCALE_BITS] * 6, 31]


class Network:
    """Weights in the clear on the server; a square is its activation."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = weights

    def encrypted(self, x: Any, windows: int) -> Any:
        """A vector of so many windows in, encrypted logits out."""
        w = self.weights
        maps = [
            x.conv2d_im2col(kernel.tolist(), windows) + float(bias)
            for kernel, bias in zip(w["conv.weight"][:, 0], w["conv.bias"], strict=True)
        ]
        x = ts.CKKSVector.pack_vectors(maps)
        x.square_()
        x = x.mm(w["dense.weight"].T.tolist()) + w["dense.bias"].tolist()
        x.square_()
        return x.mm(w["head.weight"].T.tolist()) + w["head.bias"].tolist()

    def clear(self, images: np.ndarray) -> np.ndarray:
        """The same in the clear, [count, 28, 28] -> [count, 10]."""
        w = self.weights
        windows = np.lib.stride_tricks.sliding_window_view(images, (KERNEL, KERNEL), axis=(1, 2))[:, ::STRIDE, ::STRIDE]
        x = np.einsum("nijkl,okl->noij", windows, w["conv.weight"][:, 0]) + w["conv.bias"][None, :, None, None]
        x = x.reshape(len(images), -1) ** 2
        x = (x @ w["dense.weight"].T + w["dense.bias"]) ** 2
        return x @ w["head.weight"].T + w["head.bias"]


def main() -> None:
    """Measures the networks of the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="with test.npz and the networks' weights")
    parser.add_argument("count", type=int, help="images to encrypt")
    given = parser.parse_args()
    test = np.load(given.folder / "test.npz")
    images, labels = test["images"][:, 0] / 255.0, test["labels"]
    started = time.perf_counter()
    context = ts.context(ts.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=COEFFICIENT_BITS)
    context.global_scale = 2**SCALE_BITS
    context.generate_galois_keys()
    keygen = time.perf_counter() - started
    key_bytes = len(context.serialize(save_secret_key=False))
    for activation, name in (("square", "tutorial network"), ("polynomial", "the same with a polynomial ReLU")):
        network = Network(dict(np.load(given.folder / f"{activation}.npz")))
        clear = network.clear(images).argmax(axis=1)
        seconds, right, agree, upload = [], 0, 0, 0
        for number in range(given.count):
            x, windows = ts.im2col_encoding(context, images[number].tolist(), KERNEL, KERNEL, STRIDE)
            upload = len(x.serialize())
            started = time.perf_counter()
            result = network.encrypted(x, windows)
            seconds.append(time.perf_counter() - started)
            digit = int(np.argmax(result.decrypt()))
            right, agree = right + int(digit == labels[number]), agree + int(digit == clear[number])
        low, median, high = np.quantile(seconds, [0.1, 0.5, 0.9])
        print(  # noqa: T201
            json.dumps(
                {
                    "system": f"TenSEAL, {name}",
                    "version": version("tenseal"),
                    "activation": activation,
                    "topology": "conv 4 x 7 x 7 stride 3, 64, 10",
                    "settings": "CKKS, N = 8192, primes of 31, 6 x 26, 31 bits (the tutorial's)",
                    "lookup_error_4bit": None,
                    "accuracy_clear": round(float((clear == labels).mean()), 4),
                    "accuracy_encrypted": right / given.count,
                    "accuracy_encrypted_n": given.count,
                    "agree_with_clear": agree,
                    "seconds_per_image": round(float(median), 4),
                    "p10_s": round(float(low), 4),
                    "p90_s": round(float(high), 4),
                    "keygen_s": round(keygen, 3),
                    "upload_bytes": upload,
                    "key_bytes": key_bytes,
                    "security_bits": 128,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
