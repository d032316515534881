"""For tests of the service: requests as bytes."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from ciphershift.client import Keystore
from ciphershift.he_layers.crypto import ckks, params
from ciphershift.protocol import tensors

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
        content, headers = tensors.build_request(
            [image] * images, key_id=pair.key_id, image_shape=(1, 8, 8), request_id=uuid.uuid4().hex
        )
        text, tensor = tensors.split_body(headers[tensors.HEADER_LENGTH], content)
        header = json.loads(text)
        header["parameters"] |= parameters
        return Body(*tensors.join_body(header, tensor))

    return make


@pytest.fixture(scope="session")
def bundle(keystore: Keystore) -> tuple[str, bytes]:
    """A bundle of evaluation keys with its id."""
    pair = keystore.open(TOY)
    return pair.key_id, pair.evaluation_keys.read_bytes()
