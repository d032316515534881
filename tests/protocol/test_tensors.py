"""The binary tensor extension: one way to be right, a typed error for every way to be wrong."""

import json
import struct
from typing import Any

import pytest

from ciphershift import errors
from ciphershift.protocol import tensors

KEY = "ab" * 32


def request(elements: list[bytes], **changes: Any) -> tuple[str, bytes]:
    """A request by hand, so that what `build_request` writes is not the only thing that `parse_request` reads."""
    data = b"".join(struct.pack("<I", len(element)) + element for element in elements)
    tensor = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(elements)],
        "parameters": {"binary_data_size": len(data)},
    }
    header = {"id": "7", "parameters": {"key_id": KEY, "image_shape": "1x28x28"}, "inputs": [tensor | changes]}
    text = json.dumps(header).encode()
    return str(len(text)), text + data


def test_a_built_request_is_the_one_by_hand() -> None:
    content, headers = tensors.build_request(
        [b"one", b"", b"three"], key_id=KEY, image_shape=(1, 28, 28), request_id="7"
    )
    by_hand = tensors.parse_request(*request([b"one", b"", b"three"]))
    assert tensors.parse_request(headers["Inference-Header-Content-Length"], content) == by_hand


def test_a_built_answer_is_split_into_what_it_was_made_of() -> None:
    tensor = tensors.join_elements([b"row"])
    content, headers = tensors.build_answer("m", "1", "7", tensor, 1, {"server_seconds": 0.5})
    text, rest = tensors.split_body(headers["Inference-Header-Content-Length"], content)
    assert json.loads(text) == {
        "model_name": "m",
        "model_version": "1",
        "id": "7",
        "parameters": {"server_seconds": 0.5},
        "outputs": [{"name": "logits", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 7}}],
    }
    assert tensors.split_elements(rest) == [b"row"]


def test_elements_survive() -> None:
    header, tensor, images = tensors.parse_request(*request([b"one", b"", b"three"]))
    assert tensors.split_elements(tensor) == [b"one", b"", b"three"]
    assert images == 3
    assert tensors.join_elements([b"one", b"", b"three"]) == tensor
    assert (header.id, header.parameters.key_id) == ("7", KEY)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "photo"},
        {"datatype": "FP32"},
        {"shape": [1, 1]},
        {"parameters": {}},
        {"parameters": {"binary_data_size": 1}},
        {"parameters": {"binary_data_size": -1}},
    ],
)
def test_wrong_tensor_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(errors.MalformedError):
        tensors.parse_request(*request([b"one"], **changes))


@pytest.mark.parametrize("length", [None, "", "-1", "x", "9999999999", "99999"])
def test_wrong_header_length_is_malformed(length: str | None) -> None:
    with pytest.raises(errors.MalformedError):
        tensors.parse_request(length, request([b"one"])[1])


def test_number_of_images_must_match_the_shape() -> None:
    with pytest.raises(errors.BadShapeError):
        tensors.parse_request(*request([b"one"], shape=[2]))


@pytest.mark.parametrize("data", [b"\1\0\0", b"\5\0\0\0abcd", b"\xff\xff\xff\xffabcd"])
def test_wrong_element_is_malformed(data: bytes) -> None:
    length, body = request([], parameters={"binary_data_size": len(data)})
    with pytest.raises(errors.MalformedError):
        tensors.parse_request(length, body + data)


@pytest.mark.parametrize("key_id", ["", "AB" * 32, "../" * 20, "ab" * 33])
def test_key_id_must_be_a_digest(key_id: str) -> None:
    length, body = request([b"one"])
    text = body[: int(length)].replace(KEY.encode(), key_id.encode())
    with pytest.raises(errors.MalformedError):
        tensors.parse_request(str(len(text)), text + body[int(length) :])
