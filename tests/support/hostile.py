"""Hostile containers, made with the structure in mind: each case damages one thing, and makes all that is checked before it right again.

A case names the check that must stop it. Where the digest covers what was changed, the digest is computed anew, as an attacker would.
"""

import hashlib
import random
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ciphershift import errors
from ciphershift.errors import CiphershiftError
from ciphershift.protocol import container
from ciphershift.protocol.container import HEADER_BYTES, Field, Kind

PREFIX = HEADER_BYTES - 32  # what the digest covers of the header
KNOWN = set(map(int, Kind))
SECRET_KINDS = {int(Kind.CLIENT_KEYS), int(Kind.LOCKED_CLIENT_KEYS)}
OTHER_FORMATS = (
    b"GIF8",
    b"PK\x03\x04",
    b"\x7fELF",
    b"\x80\x04\x95",
    b"\x5e\xa1\x10\x04",
    b"{}\n\n",
    b"\x28\xb5\x2f\xfd",
)


class Tally:
    """Hostile inputs by place and check; what was accepted is an error of its own in the test that tried it."""

    def __init__(self) -> None:
        self.refused: Counter[tuple[str, str]] = Counter()
        self.accepted: list[str] = []
        self.crashes = 0
        self.hangs = 0

    def refuse(self, place: str, check: str, got: BaseException | str | None, wanted: type[CiphershiftError]) -> None:
        """Counts one input; it must have met exactly the error of its check. None stands for an input that was taken."""
        code = got if isinstance(got, str) else getattr(got, "code", repr(got))
        if got is None:
            self.accepted.append(f"{place}: {check}")
        elif not isinstance(got, str | CiphershiftError):
            self.crashes += 1
        assert code == wanted.code, f"{place}, {check}: got {code}, wanted {wanted.code}"
        self.refused[place, check] += 1

    @contextmanager
    def promptly(self, seconds: float) -> Iterator[None]:
        """Sees to it that an input is dealt with in time: a hang, not a measurement."""
        started = time.perf_counter()
        yield
        if time.perf_counter() - started > seconds:
            self.hangs += 1
            raise AssertionError(f"dealt with only after {time.perf_counter() - started:.1f} s")


@dataclass(frozen=True)
class Case:
    """Bytes that must be refused by one check, with one error."""

    check: str
    error: type[CiphershiftError]
    data: bytes


@dataclass(frozen=True)
class Target:
    """A parser of containers and a well-formed one; `ranges` holds, for each field that is checked, the values that it may not have."""

    name: str
    good: bytes
    read: Callable[[bytes], object]
    fields: Sequence[Field]
    ranges: dict[str, tuple[int, int]]  # field: [first value too high, one past the highest that fits)
    masks: Sequence[str] = ()  # fields that may not be all zero
    bindings: Sequence[str] = ()  # fields that must be what the reader expects
    names_itself: bool = False

    @property
    def kind(self) -> Kind:
        return container.read_header(self.good).kind

    @property
    def payload(self) -> bytes:
        return self.good[HEADER_BYTES:]

    def span(self, name: str) -> tuple[Field, int]:
        """A field and where it starts in the payload."""
        start = 0
        for field in self.fields:
            if field.name == name:
                return field, start
            start += field.nbytes
        raise KeyError(name)

    def sealed(self, prefix: bytes, payload: bytes) -> bytes:
        """Header and payload with the right digest."""
        return prefix + hashlib.sha256(prefix + hashlib.sha256(payload).digest()).digest() + payload

    def with_header(self, offset: int, new: bytes) -> bytes:
        """Header bytes replaced, the digest right."""
        return self.sealed(self.good[:offset] + new + self.good[offset + len(new) : PREFIX], self.payload)

    def with_payload(self, payload: bytes) -> bytes:
        """The payload replaced by one of any length; length, name and digest right."""
        prefix = bytearray(self.good[:PREFIX])
        prefix[72:80] = struct.pack("<Q", len(payload))
        if self.names_itself:
            prefix[40:72] = hashlib.sha256(payload).digest()
        return self.sealed(bytes(prefix), payload)

    def with_field(self, name: str, raw: bytes) -> bytes:
        """One field's bytes replaced; name and digest right."""
        _, start = self.span(name)
        return self.with_payload(self.payload[:start] + raw + self.payload[start + len(raw) :])

    def with_entry(self, name: str, index: int, value: int) -> bytes:
        """One entry of a field replaced; name and digest right."""
        field, start = self.span(name)
        whole = int.from_bytes(self.payload[start : start + field.nbytes], "little")
        shift = index * field.bits
        whole = whole & ~(((1 << field.bits) - 1) << shift) | value << shift
        return self.with_field(name, whole.to_bytes(field.nbytes, "little"))


def cases(target: Target, count: int, rng: random.Random, *, start: int = 0) -> Iterator[Case]:
    """Yields `count` cases, from number `start` on, for every check that this kind of container has."""
    for check, error, make in _makers(target, rng):
        for i in range(start, start + count):
            yield Case(check, error, make(i))


Maker = tuple[str, type[CiphershiftError], Callable[[int], bytes]]


def _makers(target: Target, rng: random.Random) -> Iterator[Maker]:
    good, payload = target.good, target.payload
    yield "length limit", errors.TooLargeError, lambda i: good + rng.randbytes(1 << i % 17)
    yield "magic", errors.BadMagicError, lambda i: _bad_magic(good, i, rng)
    yield "header", errors.MalformedError, lambda i: _cut_header(good, i, rng)
    yield "version", errors.UnsupportedVersionError, lambda i: target.with_header(4, struct.pack("<H", _not(1, i, rng)))
    yield (
        "unknown kind",
        errors.WrongKindError,
        lambda i: target.with_header(6, struct.pack("<H", _unknown_kind(i, rng))),
    )
    others = sorted(KNOWN - SECRET_KINDS - {int(target.kind)})
    yield "another kind", errors.WrongKindError, lambda i: _other_kind(target, others[i % len(others)], i, rng)
    if target.kind not in SECRET_KINDS:
        secret = sorted(SECRET_KINDS)
        yield "secret keys", errors.SecretKeyOnServerError, lambda i: _other_kind(target, secret[i % 2], i, rng)
    yield "params_id", errors.WrongParamsError, lambda i: target.with_header(8, _flipped(good[8:40], i))
    if not target.names_itself:
        yield "key_id", errors.WrongKeyError, lambda i: target.with_header(40, _flipped(good[40:72], i))
    yield (
        "length",
        errors.WrongLengthError,
        lambda i: target.with_header(72, struct.pack("<Q", _wrong_length(payload, i, rng))),
    )
    yield (
        "payload length",
        errors.WrongLengthError,
        lambda i: target.with_payload(payload[: -1 - i % (len(payload) - 1)]),
    )
    yield "truncated payload", errors.MalformedError, lambda i: good[: rng.randrange(HEADER_BYTES, len(good))]
    yield "digest", errors.DigestMismatchError, lambda i: _flipped(good, rng.randrange(PREFIX * 8, len(good) * 8))
    if target.names_itself:
        yield "own name", errors.WrongKeyError, lambda i: target.with_header(40, _flipped(good[40:72], i))
    padded = [field for field in target.fields if field.count * field.bits % 8]
    if padded:
        yield "padding bits", errors.MalformedError, lambda i: _with_padding(target, padded[i % len(padded)], i, rng)
    for name, (low, high) in target.ranges.items():
        yield (
            f"values of {name}",
            errors.NotConformantError,
            lambda i, n=name, least=low, end=high: target.with_entry(  # type: ignore[misc]
                n, rng.randrange(target.span(n)[0].count), (least, end - 1, rng.randrange(least, end))[min(i, 2)]
            ),
        )
    for name in target.masks:
        yield "empty mask", errors.NotConformantError, lambda i, n=name: _without_mask(target, n, rng)  # type: ignore[misc]
    for name in target.bindings:
        yield (
            f"bound {name}",
            errors.WrongAnswerError,
            lambda i, n=name: target.with_field(  # type: ignore[misc]
                n, _flipped(_raw(target, n), i % 256)
            ),
        )


def _raw(target: Target, name: str) -> bytes:
    field, start = target.span(name)
    return target.payload[start : start + field.nbytes]


def _flipped(data: bytes, bit: int) -> bytes:
    bit %= len(data) * 8
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _bad_magic(good: bytes, i: int, rng: random.Random) -> bytes:
    if i < 4:
        return good[:i]
    if i < 36:
        return _flipped(good[:4], i - 4) + good[4:]
    if i < 36 + len(OTHER_FORMATS):
        return OTHER_FORMATS[i - 36] + good[4:]
    start = rng.randbytes(4)
    return (start if start != container.MAGIC else b"\0\0\0\0") + good[4:]


def _cut_header(good: bytes, i: int, rng: random.Random) -> bytes:
    """Cut after every byte, then again behind random contents."""
    header = good[:HEADER_BYTES] if i < HEADER_BYTES - 4 else container.MAGIC + rng.randbytes(HEADER_BYTES - 4)
    return header[: 4 + i % (HEADER_BYTES - 4)]


def _not(value: int, i: int, rng: random.Random) -> int:
    return next(v for v in (i if i < 100 else rng.randrange(1 << 16), 0) if v != value)


def _unknown_kind(i: int, rng: random.Random) -> int:
    kind = i if i < 100 else rng.randrange(1 << 16)
    return kind if kind not in KNOWN else 0xFFFF - kind


def _other_kind(target: Target, kind: int, i: int, rng: random.Random) -> bytes:
    """Another kind's header before this payload, and before a random one of the same length."""
    payload = target.payload if i < 5 else rng.randbytes(len(target.payload))
    prefix = target.good[:6] + struct.pack("<H", kind) + target.good[8:PREFIX]
    return target.sealed(prefix, payload)


def _wrong_length(payload: bytes, i: int, rng: random.Random) -> int:
    bombs = (
        0,
        1,
        len(payload) - 1,
        len(payload) + 1,
        2**31,
        2**32 - 1,
        2**32,
        2**40,
        2**63 - 1,
        2**63,
        2**64 - 1,
        2**64 - 112,
    )
    length = bombs[i] if i < len(bombs) else rng.randrange(1 << rng.randrange(1, 65))
    return length if length != len(payload) else 0


def _with_padding(target: Target, field: Field, i: int, rng: random.Random) -> bytes:
    """A padding bit set behind random entries that are all small."""
    padding = 8 * field.nbytes - field.count * field.bits
    _, start = target.span(field.name)
    raw = bytearray(target.payload[start : start + field.nbytes])
    raw[-1] |= (1 + i % ((1 << padding) - 1)) << (8 - padding)
    raw[0] ^= rng.randrange(256) & (0xFF if field.nbytes > 1 else 0)
    return target.with_field(field.name, bytes(raw))


def _without_mask(target: Target, name: str, rng: random.Random) -> bytes:
    """No encryption at all: the mask is zero, the body is anything."""
    mask, start = target.span(name)
    body, at = target.span("c0")
    changed = bytearray(target.payload)
    whole = rng.randrange(1 << body.count * body.bits)
    changed[at : at + body.nbytes] = whole.to_bytes(body.nbytes, "little")
    changed[start : start + mask.nbytes] = bytes(mask.nbytes)
    return target.with_payload(bytes(changed))
