"""The container: what goes in comes out, and every way of being wrong has its own error."""

import hashlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ciphershift import errors
from ciphershift.protocol import container
from ciphershift.protocol.container import HEADER_BYTES, Field, Kind

PARAMS, OTHER_PARAMS = "11" * 32, "22" * 32
KEY, OTHER_KEY = "aa" * 32, "bb" * 32
PAYLOAD = bytes(range(100))
DATA = container.pack(Kind.CKKS_CIPHERTEXT, PARAMS, KEY, PAYLOAD)
WANTED: dict[str, Any] = {
    "kind": Kind.CKKS_CIPHERTEXT,
    "params_id": PARAMS,
    "key_id": KEY,
    "payload_bytes": len(PAYLOAD),
}


def with_field(offset: int, new: bytes) -> bytes:
    """Replaces header bytes and makes the digest right again, so that the check behind it is reached."""
    prefix = DATA[:offset] + new + DATA[offset + len(new) : 80]
    return prefix + hashlib.sha256(prefix + hashlib.sha256(PAYLOAD).digest()).digest() + PAYLOAD


def test_payload_survives() -> None:
    assert container.unpack(DATA, **WANTED) == PAYLOAD
    assert len(DATA) == HEADER_BYTES + len(PAYLOAD)


def test_evaluation_keys_name_themselves() -> None:
    data = container.pack(Kind.EVALUATION_KEYS, PARAMS, None, PAYLOAD)
    assert container.read_header(data).key_id == hashlib.sha256(PAYLOAD).hexdigest()
    wanted = WANTED | {"kind": Kind.EVALUATION_KEYS, "key_id": None}
    assert container.unpack(data, **wanted) == PAYLOAD


def test_evaluation_keys_under_a_false_name_are_refused() -> None:
    data = container.pack(Kind.EVALUATION_KEYS, PARAMS, KEY, PAYLOAD)
    with pytest.raises(errors.WrongKeyError):
        container.unpack(data, **WANTED | {"kind": Kind.EVALUATION_KEYS, "key_id": None})


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(DATA + b"\0", errors.TooLargeError, id="one byte more"),
        pytest.param(b"\xff" * (1 << 20), errors.TooLargeError, id="a megabyte of anything"),
        pytest.param(b"", errors.BadMagicError, id="nothing"),
        pytest.param(with_field(0, b"CSFX"), errors.BadMagicError, id="magic"),
        pytest.param(with_field(4, b"\2\0"), errors.UnsupportedVersionError, id="version"),
        pytest.param(with_field(6, b"\0\0"), errors.WrongKindError, id="kind that does not exist"),
        pytest.param(with_field(6, b"\3\0"), errors.WrongKindError, id="another kind"),
        pytest.param(with_field(6, b"\4\0"), errors.SecretKeyOnServerError, id="secret keys"),
        pytest.param(with_field(8, bytes.fromhex(OTHER_PARAMS)), errors.WrongParamsError, id="params_id"),
        pytest.param(with_field(40, bytes.fromhex(OTHER_KEY)), errors.WrongKeyError, id="key_id"),
        pytest.param(with_field(72, struct.pack("<Q", 99)), errors.WrongLengthError, id="length"),
        pytest.param(with_field(72, struct.pack("<Q", 1 << 63)), errors.WrongLengthError, id="length bomb"),
        pytest.param(DATA[:-1] + b"\0", errors.DigestMismatchError, id="payload damaged"),
        pytest.param(DATA[:80] + b"\0" + DATA[81:], errors.DigestMismatchError, id="digest damaged"),
    ],
)
def test_each_wrong_field_has_its_error(data: bytes, error: type[errors.CiphershiftError]) -> None:
    with pytest.raises(error) as raised:
        container.unpack(data, **WANTED)
    assert type(raised.value) is error


def test_every_truncation_is_refused() -> None:
    for length in range(len(DATA)):
        error = errors.BadMagicError if length < 4 else errors.MalformedError
        with pytest.raises(error):
            container.unpack(DATA[:length], **WANTED)


@given(st.integers(0, len(DATA) * 8 - 1))
def test_every_flipped_bit_is_refused(bit: int) -> None:
    data = bytearray(DATA)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(errors.CiphershiftError):
        container.unpack(bytes(data), **WANTED)


@given(st.integers(1, 64), st.data())
def test_packed_bits_equal_one_long_integer(bits: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=200))
    packed = container.pack_bits(np.array(values, dtype=np.uint64), bits)
    whole = sum(value << (i * bits) for i, value in enumerate(values))
    assert packed == whole.to_bytes((len(values) * bits + 7) // 8, "little")
    assert container.unpack_bits(packed, len(values), bits).tolist() == values


def test_fields_follow_each_other() -> None:
    fields = [Field("a", 3, 5), Field("b", 2, 64), Field("seed", 4, 8)]
    values: dict[str, NDArray[Any]] = {
        "a": np.array([1, 31, 0], dtype=np.uint64),
        "b": np.array([2**64 - 1, 7], dtype=np.uint64),
        "seed": np.arange(4, dtype=np.uint8),
    }
    payload = container.pack_fields(fields, values)
    assert len(payload) == container.payload_bytes(fields) == 2 + 16 + 4
    read = container.unpack_fields(fields, payload)
    assert all(np.array_equal(read[name], values[name]) for name in values)


def test_padding_must_be_zero() -> None:
    payload = bytearray(container.pack_fields([Field("a", 3, 5)], {"a": np.array([1, 2, 3], dtype=np.uint64)}))
    payload[-1] |= 0x80
    with pytest.raises(errors.MalformedError):
        container.unpack_fields([Field("a", 3, 5)], bytes(payload))


def test_fields_need_their_exact_length() -> None:
    with pytest.raises(errors.WrongLengthError):
        container.unpack_fields([Field("a", 3, 5)], b"\0\0\0")
