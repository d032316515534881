"""The client's steps: keys, encoding, encryption, decryption, predictions."""

from __future__ import annotations

import numpy as np

from ciphershift.benchmarks.fhe_benchmarking.instance import Instance, parameter_set, program, write
from ciphershift.he_layers.crypto import ckks
from ciphershift.he_layers.crypto.ciphertexts import Binding, CkksCiphertext, PackedAnswer
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.protocol.container import HEADER_BYTES, read_header
from ciphershift.server.settings import available_cpus


def generate_keys(instance: Instance) -> None:
    """Makes secret and evaluation keys."""
    keys = ClientKeys.generate(parameter_set())
    write(instance.secret_key, keys.to_bytes(), mode=0o600)
    write(instance.evaluation_keys, keys.evaluation_keys(available_cpus()).to_bytes())


def preprocess_input(instance: Instance) -> None:
    """Turns the text of pixels into the network's integers."""
    spec = program().input
    pixels = np.loadtxt(instance.pixels, ndmin=2)
    images = np.rint(pixels * 255).astype(np.uint8).reshape(-1, *spec.shape)
    instance.images.parent.mkdir(parents=True, exist_ok=True)
    np.save(instance.images, spec.integers(images))


def encrypt_input(instance: Instance) -> None:
    """Encrypts image by image."""
    keys, key_id, delta = _secret_keys(instance), _key_id(instance), program().input.delta
    for number, image in enumerate(np.load(instance.images, allow_pickle=False)):
        ciphertext = ckks.encrypt(keys, key_id, image.reshape(-1) * delta)
        write(instance.uploads / f"{number:05}.bin", ciphertext.to_bytes())


def decrypt_result(instance: Instance) -> None:
    """Decrypts the logits of each image; refuses an answer to any other request."""
    keys, key_id, network = _secret_keys(instance), _key_id(instance), program()
    values, classes = int(np.prod(network.input.shape)), network.answer_values
    rows = []
    for upload in sorted(instance.uploads.iterdir()):
        sent = CkksCiphertext.from_bytes(upload.read_bytes(), keys.params, key_id, values)
        answer = (instance.downloads / upload.name).read_bytes()
        packed = PackedAnswer.from_bytes(answer, keys.params, Binding.of([sent], network.digest), classes)
        rows.append(network.logits(ckks.decrypt(keys, packed)))
    np.save(instance.logits, np.stack(rows))


def postprocess(instance: Instance) -> None:
    """Writes the predicted digit of each image."""
    classes = program().output.classes
    digits = [classes[number] for number in np.load(instance.logits, allow_pickle=False).argmax(axis=1)]
    write(instance.predictions, "".join(f"{digit}\n" for digit in digits).encode())


def _secret_keys(instance: Instance) -> ClientKeys:
    return ClientKeys.from_bytes(instance.secret_key.read_bytes(), parameter_set())


def _key_id(instance: Instance) -> str:
    with instance.evaluation_keys.open("rb") as file:
        return read_header(file.read(HEADER_BYTES)).key_id
