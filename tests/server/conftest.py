"""For tests of the service: requests as bytes."""

import json
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from ciphershift.client import Keystore
from ciphershift.he_layers.crypto import ckks, params

TOY = params.get("TOY_N128")


@dataclass(frozen=True)
class Body:
    """The body of an inference request, and its headers."""

    content: bytes
    headers: dict[str, str]


@pytest.fixture(scope="session")
def make_body(keystore: Keystore) -> Callable[[int], Body]:
    """Makes a request of so many encrypted images for the tiny network."""
    pair = keystore.open(TOY)
    image = ckks.encrypt(pair.client_keys, pair.key_id, np.full(64, 0.01)).to_bytes()

    def make(images: int = 1, **parameters: str) -> Body:
        data = (struct.pack("<I", len(image)) + image) * images
        tensor = {
            "name": "image",
            "datatype": "BYTES",
            "shape": [images],
            "parameters": {"binary_data_size": len(data)},
        }
        given = {"key_id": pair.key_id, "image_shape": "1x8x8", **parameters}
        text = json.dumps({"id": uuid.uuid4().hex, "parameters": given, "inputs": [tensor]}).encode()
        return Body(text + data, {"Inference-Header-Content-Length": str(len(text))})

    return make


@pytest.fixture(scope="session")
def bundle(keystore: Keystore) -> tuple[str, bytes]:
    """A bundle of evaluation keys with its id."""
    pair = keystore.open(TOY)
    return pair.key_id, pair.evaluation_keys.read_bytes()
