"""The one binary container for everything that crosses a border or rests on a disk.

    offset  bytes  field
         0      4  magic          b"CSFT"
         4      2  version        format version, 1
         6      2  kind           what the payload is (Kind)
         8     32  params_id      SHA-256 of the canonical parameter set
        40     32  key_id         SHA-256 of the evaluation-key *payload* that the object belongs to
        72      8  length         payload bytes
        80     32  digest         SHA-256(the 80 bytes before it || SHA-256(payload))
       112      …  payload        fields of fixed length, one after the other

All integers are little-endian. A bundle of evaluation keys names itself: its key_id is the SHA-256 of its own payload, which is also
the address under which a server stores it. A payload has no structure of its own: the parameter set says which fields follow each
other, how many entries each has and how many bits an entry takes (Field), so its exact length is known before it is read.

Checks run in this order, each with an error of its own: length limit, magic, header, version, kind, params_id, key_id, length,
digest; decoding and conformance are up to the type that the payload becomes.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import (
    BadMagicError,
    DigestMismatchError,
    MalformedError,
    SecretKeyOnServerError,
    TooLargeError,
    UnsupportedVersionError,
    WrongKeyError,
    WrongKindError,
    WrongLengthError,
    WrongParamsError,
)

Bytes = bytes | bytearray | memoryview

MAGIC = b"CSFT"
VERSION = 1
_PREFIX = struct.Struct("<4sHH32s32sQ")
HEADER_BYTES = _PREFIX.size + 32


class Kind(IntEnum):
    """What a container holds."""

    EVALUATION_KEYS = 1
    CKKS_CIPHERTEXT = 2
    PACKED_ANSWER = 3
    CLIENT_KEYS = 4  # secret: rests in the client's keystore, refused everywhere else
    LOCKED_CLIENT_KEYS = 5  # the same, sealed under a passphrase
    PRODUCT_CIPHERTEXT = 6  # an input that is multiplied by weights, without a look-up


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """The fixed header of a container; ids are lower-case hex."""

    kind: Kind
    params_id: str
    key_id: str
    length: int
    prefix: bytes
    digest: bytes


def payload_id(payload: Bytes) -> str:
    """Returns the SHA-256 of a payload in hex: the key_id of a bundle of evaluation keys."""
    return hashlib.sha256(payload).hexdigest()


def pack(kind: Kind, params_id: str, key_id: str | None, payload: Bytes) -> bytes:
    """Wraps a payload; `key_id` None lets the payload name itself, as evaluation keys do."""
    own_id = payload_id(payload)
    prefix = _PREFIX.pack(
        MAGIC, VERSION, kind, bytes.fromhex(params_id), bytes.fromhex(key_id or own_id), memoryview(payload).nbytes
    )
    return b"".join((prefix, _digest(prefix, own_id), payload))


def read_header(data: Bytes) -> Header:
    """Reads and checks the header alone: magic, header, version, kind.

    Raises:
        BadMagicError, MalformedError, UnsupportedVersionError, WrongKindError: in this order.
    """
    view = memoryview(data)
    if view[: len(MAGIC)] != MAGIC:
        raise BadMagicError(f"the data does not begin with {MAGIC!r}: it is not a container of this project")
    if view.nbytes < HEADER_BYTES:
        raise MalformedError(f"the data ends after {view.nbytes} bytes, the header alone has {HEADER_BYTES}")
    prefix = bytes(view[: _PREFIX.size])
    _, version, kind, params_id, key_id, length = _PREFIX.unpack(prefix)
    if version != VERSION:
        raise UnsupportedVersionError(f"the container has format version {version}, this release reads {VERSION}")
    if kind not in set(map(int, Kind)):
        raise WrongKindError(f"the container holds kind {kind}, which is none of {', '.join(k.name for k in Kind)}")
    digest = bytes(view[_PREFIX.size : HEADER_BYTES])
    return Header(
        kind=Kind(kind), params_id=params_id.hex(), key_id=key_id.hex(), length=length, prefix=prefix, digest=digest
    )


def check_kind(header: Header, kind: Kind) -> None:
    """Checks what a container holds. Raises SecretKeyOnServerError or WrongKindError."""
    if header.kind != kind:
        if header.kind in (Kind.CLIENT_KEYS, Kind.LOCKED_CLIENT_KEYS):
            raise SecretKeyOnServerError("the container holds secret keys; send the evaluation keys instead")
        raise WrongKindError(f"the container holds {header.kind.name}, wanted is {kind.name}")


def check_header(header: Header, *, kind: Kind, params_id: str, key_id: str | None, payload_bytes: int) -> None:
    """Checks a header against what is expected; `key_id` None accepts the name that the payload gives itself.

    Raises:
        SecretKeyOnServerError, WrongKindError, WrongParamsError, WrongKeyError, WrongLengthError: in this order.
    """
    check_kind(header, kind)
    if header.params_id != params_id:
        raise WrongParamsError(f"the {kind.name} was made under parameters {header.params_id}, wanted is {params_id}")
    if key_id is not None and header.key_id != key_id:
        raise WrongKeyError(f"the {kind.name} belongs to key {header.key_id}, wanted is {key_id}")
    if header.length != payload_bytes:
        raise WrongLengthError(
            f"the {kind.name} has {header.length} payload bytes, its parameters need {payload_bytes}"
        )


def unpack(data: Bytes, *, kind: Kind, params_id: str, key_id: str | None, payload_bytes: int) -> memoryview:
    """Checks a container and returns its payload, without a copy.

    Args:
        data: the whole container.
        kind: the kind that is wanted.
        params_id: the parameter set in use.
        key_id: the key bundle in use; None for a payload that names itself, which is then verified.
        payload_bytes: the exact length of the payload, which the parameter set prescribes.

    Raises:
        WireError, ParameterError, KeyMismatchError: the first check that fails, in the order of the module's text.
    """
    view = memoryview(data).cast("B")
    if view.nbytes > HEADER_BYTES + payload_bytes:
        raise TooLargeError(f"{view.nbytes} bytes arrived, a {kind.name} has {HEADER_BYTES + payload_bytes}")
    header = read_header(view)
    check_header(header, kind=kind, params_id=params_id, key_id=key_id, payload_bytes=payload_bytes)
    payload = view[HEADER_BYTES:]
    if payload.nbytes != header.length:
        raise MalformedError(f"the payload ends after {payload.nbytes} bytes, the header promises {header.length}")
    own_id = payload_id(payload)
    if _digest(header.prefix, own_id) != header.digest:
        raise DigestMismatchError(f"the {kind.name} does not match its digest: it was damaged, send it again")
    if key_id is None and header.key_id != own_id:
        raise WrongKeyError(f"the {kind.name} calls itself {header.key_id}, its payload is {own_id}")
    return payload


def _digest(prefix: bytes, own_id: str) -> bytes:
    return hashlib.sha256(prefix + bytes.fromhex(own_id)).digest()


@dataclass(frozen=True, slots=True)
class Field:
    """A run of `count` unsigned integers of `bits` bits each, padded with zero bits to a whole byte."""

    name: str
    count: int
    bits: int

    @property
    def nbytes(self) -> int:
        """Bytes that the field takes in a payload."""
        return (self.count * self.bits + 7) // 8


def payload_bytes(fields: Sequence[Field]) -> int:
    """Returns the exact length of a payload made of these fields."""
    return sum(field.nbytes for field in fields)


def pack_fields(fields: Sequence[Field], values: Mapping[str, NDArray[np.unsignedinteger]]) -> bytes:
    """Writes the named arrays, flattened, in the order of `fields`."""
    for field in fields:
        assert values[field.name].size == field.count, f"{field.name} has {values[field.name].size} entries"
    return b"".join(pack_bits(values[field.name], field.bits) for field in fields)


def unpack_fields(fields: Sequence[Field], payload: Bytes) -> dict[str, NDArray[np.uint64]]:
    """Reads what `pack_fields` wrote.

    Raises:
        MalformedError: a padding bit is set.
        WrongLengthError: the payload is longer or shorter than the fields.
    """
    view = memoryview(payload)
    if view.nbytes != payload_bytes(fields):
        raise WrongLengthError(f"the payload has {view.nbytes} bytes, its fields take {payload_bytes(fields)}")
    return {field.name: unpack_bits(view[start:stop], field.count, field.bits) for field, start, stop in _spans(fields)}


def _spans(fields: Sequence[Field]) -> Iterator[tuple[Field, int, int]]:
    start = 0
    for field in fields:
        yield field, start, start + field.nbytes
        start += field.nbytes


def pack_bits(values: NDArray[np.unsignedinteger], bits: int) -> bytes:
    """Packs unsigned integers below 2**bits, little-endian, least significant bit first."""
    flat = np.ascontiguousarray(values, dtype=np.uint64).ravel()
    # A value that does not fit would spill into its neighbor: a fault of the caller, never of foreign data.
    assert bits == 64 or not flat.size or int(flat.max()) >> bits == 0, f"a value does not fit into {bits} bits"
    group, words_per_group = _group(bits)
    padded = np.zeros((-(-flat.size // group), group), dtype=np.uint64)
    padded.reshape(-1)[: flat.size] = flat
    words = np.zeros((len(padded), words_per_group), dtype="<u8")
    for i in range(group):
        word, shift = divmod(i * bits, 64)
        words[:, word] |= padded[:, i] << np.uint64(shift)
        if shift + bits > 64:
            words[:, word + 1] |= padded[:, i] >> np.uint64(64 - shift)
    return words.tobytes()[: (flat.size * bits + 7) // 8]


def unpack_bits(data: Bytes, count: int, bits: int) -> NDArray[np.uint64]:
    """Unpacks `count` integers that `pack_bits` packed.

    Raises:
        MalformedError: a bit beyond the last integer is set, so that the packing is not canonical.
    """
    raw = np.frombuffer(data, dtype=np.uint8)
    assert raw.size == (count * bits + 7) // 8, "the caller takes exactly the bytes of the field"
    if raw.size and int(raw[-1]) >> (8 - (8 * raw.size - count * bits)):
        raise MalformedError("the padding bits at the end of a field are not zero")
    group, words_per_group = _group(bits)
    words = np.zeros((-(-count // group), words_per_group), dtype="<u8")
    words.reshape(-1).view(np.uint8)[: raw.size] = raw
    values = np.empty((len(words), group), dtype=np.uint64)
    mask = np.uint64((1 << bits) - 1)
    for i in range(group):
        word, shift = divmod(i * bits, 64)
        column = words[:, word] >> np.uint64(shift)
        if shift + bits > 64:
            column |= words[:, word + 1] << np.uint64(64 - shift)
        values[:, i] = column & mask
    return values.reshape(-1)[:count]


def _group(bits: int) -> tuple[int, int]:
    """Returns (entries, 64-bit words) of the shortest run of entries that fills whole words."""
    common = math.gcd(bits, 64)
    return 64 // common, bits // common
