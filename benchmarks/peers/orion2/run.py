"""Orion v2 on Lattigo 6: LoLA's network with squares on encrypted MNIST images. Runs in its own environment.

Parameters are those of its LoLA example (examples/models/lola.py): N = 8192, primes of 29 and 5 x 26 bits, two special ones of 29 bits, 217
bits in all, in the conjugate-invariant ring. Only the secret differs: the example leaves it at a default of 192 coefficients that are not
zero, for which the 217 bits are not stated to be 128-bit secure; here it is dense, as in Orion's own configuration for LoLA.

The server's part is timed as a server has it: a ciphertext as bytes in, a ciphertext as bytes out.
"""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import orion_compiler.nn as on
import torch
from lattigo.ckks import Encoder, Parameters
from lattigo.rlwe import Ciphertext, Decryptor, Encryptor, KeyGenerator, MemEvaluationKeySet
from orion_compiler import CKKSParams, Compiler
from orion_evaluator import Evaluator, Model

PARAMETERS = CKKSParams(
    logn=13,
    logq=(29, 26, 26, 26, 26, 26),
    logp=(29, 29),
    log_default_scale=26,
    h=8192,
    ring_type="conjugate_invariant",
)
LAYERS = {"conv": "conv1", "dense": "fc1", "head": "fc2"}
DIGITS = 10


class Lola(on.Module):
    """A convolution of 5 maps, a square, 100 units, a square, 10 units; batch norms are folded into the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = on.Conv2d(1, 5, kernel_size=5, padding=2, stride=2)
        self.act1 = on.Quad()
        self.flatten = on.Flatten()
        self.fc1 = on.Linear(980, 100)
        self.act2 = on.Quad()
        self.fc2 = on.Linear(100, DIGITS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 1, 28, 28] -> [B, 10], in the clear."""
        return self.fc2(self.act2(self.fc1(self.flatten(self.act1(self.conv1(x))))))


class Client:
    """Keys, and what needs them."""

    def __init__(self, parameters: dict, manifest: dict, level: int) -> None:
        self.parameters, self.level = Parameters.from_dict(parameters), level
        generator = KeyGenerator(self.parameters)
        secret = generator.gen_secret_key()
        relinearization = generator.gen_relin_key(secret) if manifest["needs_rlk"] else None
        rotations = [generator.gen_galois_key(secret, int(element)) for element in manifest["galois_elements"]]
        self.evaluation_keys = MemEvaluationKeySet(rlk=relinearization, galois_keys=rotations).marshal_binary()
        self.encoder = Encoder(self.parameters)
        self.encryptor = Encryptor(self.parameters, generator.gen_public_key(secret))
        self.decryptor = Decryptor(self.parameters, secret)

    def encrypt(self, image: torch.Tensor) -> bytes:
        """One ciphertext of all its pixels."""
        slots = np.zeros(self.parameters.max_slots())
        slots[: image.numel()] = image.flatten()
        encoded = self.encoder.encode(slots.tolist(), self.level, self.parameters.default_scale())
        return self.encryptor.encrypt_new(encoded).marshal_binary()

    def decrypt(self, answer: bytes) -> np.ndarray:
        """Logits."""
        decrypted = self.decryptor.decrypt_new(Ciphertext.unmarshal_binary(answer))
        return np.asarray(self.encoder.decode(decrypted, self.parameters.max_slots())[:DIGITS])


def trained(folder: Path) -> Lola:
    """With the folder's weights."""
    weights, network = np.load(folder / "lola.npz"), Lola()
    state = {
        f"{name}.{kind}": torch.tensor(weights[f"{layer}.{kind}"])
        for layer, name in LAYERS.items()
        for kind in ("weight", "bias")
    }
    network.load_state_dict(state, strict=False)
    return network.eval()


def compiled(network: Lola, image: torch.Tensor) -> Model:
    """As a server loads it; the image tells the shapes, squares have no ranges to fit."""
    compiler = Compiler(network, PARAMETERS)
    compiler.fit(image)
    return Model.load(compiler.compile().to_bytes())


def main() -> None:
    """Measures the network."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="with test.npz and lola.npz")
    parser.add_argument("count", type=int, help="images to encrypt")
    given = parser.parse_args()
    test = np.load(given.folder / "test.npz")
    images, labels = torch.tensor(test["images"] / 255, dtype=torch.float32), test["labels"]
    network = trained(given.folder)
    with torch.no_grad():
        clear = network(images).argmax(dim=1).numpy()
    model = compiled(network, images[:1])
    parameters, manifest, level = model.client_params()
    started = time.perf_counter()
    client = Client(parameters, manifest, level)
    keygen = time.perf_counter() - started
    evaluator = Evaluator(parameters, client.evaluation_keys)
    seconds, right, agree, upload = [], 0, 0, 0
    for number in range(given.count):
        encrypted = client.encrypt(images[number])
        upload = len(encrypted)
        started = time.perf_counter()
        (answer,) = evaluator.forward(model, [encrypted])
        seconds.append(time.perf_counter() - started)
        digit = int(client.decrypt(answer).argmax())
        right, agree = right + int(digit == labels[number]), agree + int(digit == clear[number])
    low, median, high = np.quantile(seconds, [0.1, 0.5, 0.9])
    print(  # noqa: T201
        json.dumps(
            {
                "system": "Orion v2, LoLA",
                "version": version("orion-v2-evaluator"),
                "activation": "square",
                "topology": "conv 5 x 5 x 5 stride 2, 100, 10",
                "settings": "CKKS (Lattigo 6), N = 8192, primes of 29, 5 x 26 and 2 x 29 bits, conjugate-invariant ring",
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
                "key_bytes": len(client.evaluation_keys),
                "security_bits": 128,
            }
        )
    )


if __name__ == "__main__":
    main()
