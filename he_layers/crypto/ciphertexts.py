"""Ciphertexts as data: arrays and the ids of the parameters and keys they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import NotConformantError, WrongAnswerError
from ciphershift.he_layers.crypto.params import PRODUCT_BODY_BITS, PRODUCT_MASK_BITS, CkksRing, ParameterSet
from ciphershift.he_layers.crypto.published import PublishedRow
from ciphershift.protocol import container
from ciphershift.protocol.container import Bytes, Field, Kind


def to_modulus(words: NDArray[np.uint64], source: int, target: int) -> NDArray[np.uint64]:
    """Words modulo ``source``, at most 2^53, rounded to words modulo ``target`` that stand for the same shares of a turn."""
    return np.asarray(np.rint(words * (target / source)).astype(np.uint64) % np.uint64(target))


@dataclass(frozen=True, slots=True)
class LweCiphertextList:
    """LWE ciphertexts as rows of torus words (value * 2**32): uint32 [count, dimension + bodies], mask first.

    Attributes:
        data: the rows.
        input_words: words of the mask that belong to the CKKS input secret, before those of the big key.
        bodies: values of a row, with one mask, each under a key of its own; 1 but between the steps of a look-up.
    """

    data: NDArray[np.uint32]
    input_words: int = 0
    bodies: int = 1

    def __len__(self) -> int:
        """Number of ciphertexts."""
        return len(self.data)

    @property
    def dimension(self) -> int:
        """Words of a mask."""
        return int(self.data.shape[1]) - self.bodies


@dataclass(frozen=True, kw_only=True, slots=True)
class CkksCiphertext:
    """Fresh CKKS encryptions of `len(c0)` message coefficients, in coefficient (not NTT) form: as many ring elements as they need.

    Messages fill one ring element after the other: an image of three channels of 32 x 32 has one for each channel. c1 is complete,
    residues modulo the input ring's prime; of c0 only the message coefficients are kept, rounded to `input_body_bits` (which adds noise
    of 2**-bits / sqrt(12), see noise.fresh_ckks_variance).
    """

    kind: ClassVar[Kind] = Kind.CKKS_CIPHERTEXT
    title: ClassVar[str] = "CKKS ciphertext of the input"
    secret: ClassVar[str] = "input_secret"

    params: ParameterSet
    key_id: str
    c0: NDArray[np.uint64]  # [messages], units of 2**-body_bits of the torus
    c1: NDArray[np.uint64]  # [ring elements, ring_degree], of mask_values different ones

    @staticmethod
    def ring(params: ParameterSet) -> CkksRing:
        """Where the messages are encrypted."""
        return params.input_ring

    @staticmethod
    def body_bits(params: ParameterSet) -> int:
        """Bits kept of c0."""
        return params.input_body_bits

    @classmethod
    def mask_values(cls, params: ParameterSet) -> int:
        """How many values a word of c1 may take, which stand for one turn."""
        return cls.ring(params).modulus

    @classmethod
    def _fields(cls, params: ParameterSet, messages: int) -> Sequence[Field]:
        degree = cls.ring(params).ring_degree
        masks = -(-messages // degree) * degree
        mask_bits = (cls.mask_values(params) - 1).bit_length()
        return Field("c0", messages, cls.body_bits(params)), Field("c1", masks, mask_bits)

    @classmethod
    def published_rows(cls, params: ParameterSet) -> list[PublishedRow]:
        """Returns what the ciphertext shows to whoever holds it."""
        return [
            PublishedRow.of_ring(
                cls.title,
                fields=("c0", "c1"),
                key=cls.secret,
                ring=cls.ring(params),
                body_bits=cls.body_bits(params),
            )
        ]

    @classmethod
    def nbytes(cls, params: ParameterSet, messages: int) -> int:
        """Bytes of the container of a ciphertext with this many messages."""
        return container.HEADER_BYTES + container.payload_bytes(cls._fields(params, messages))

    def to_bytes(self) -> bytes:
        """Returns the ciphertext in its container."""
        payload = container.pack_fields(self._fields(self.params, len(self.c0)), {"c0": self.c0, "c1": self.c1})
        return container.pack(self.kind, self.params.id, self.key_id, payload)

    @classmethod
    def from_bytes(cls, data: Bytes, params: ParameterSet, key_id: str, messages: int) -> Self:
        """Reads a ciphertext of `messages` coefficients under these parameters and keys.

        Raises:
            WireError, ParameterError, KeyMismatchError: see container.unpack.
            NotConformantError: a residue is not below the modulus, or the mask is zero (no encryption at all).
        """
        fields = cls._fields(params, messages)
        payload = container.unpack(
            data,
            kind=cls.kind,
            params_id=params.id,
            key_id=key_id,
            payload_bytes=container.payload_bytes(fields),
        )
        values = container.unpack_fields(fields, payload)
        masks = values["c1"].reshape(-1, cls.ring(params).ring_degree)
        for mask in masks:
            _check_mask(mask, cls.mask_values(params))
        return cls(params=params, key_id=key_id, c0=values["c0"], c1=masks)


class ProductCiphertext(CkksCiphertext):
    """Fresh CKKS encryptions in the answer ring, for networks without a look-up: weighted sums of them are packed as they are.

    Both parts are rounded to a power of two, which adds the noise of noise.fresh_product_variance. The sums multiply it by the weights'
    norm, hence more bits than in an input of look-ups.
    """

    __slots__ = ()
    kind: ClassVar[Kind] = Kind.PRODUCT_CIPHERTEXT
    title: ClassVar[str] = "CKKS ciphertext of an input without look-ups"
    secret: ClassVar[str] = "answer_secret"

    @staticmethod
    def ring(params: ParameterSet) -> CkksRing:
        """The ring of answers."""
        return params.answer_ring

    @staticmethod
    def body_bits(params: ParameterSet) -> int:
        """The same under all parameter sets."""
        return PRODUCT_BODY_BITS

    @classmethod
    def mask_values(cls, params: ParameterSet) -> int:
        """A power of two."""
        return 1 << PRODUCT_MASK_BITS


def ciphertext_type(lookups: int) -> type[CkksCiphertext]:
    """What the input of a network with so many look-ups is encrypted as."""
    return CkksCiphertext if lookups else ProductCiphertext


@dataclass(frozen=True, kw_only=True, slots=True)
class Binding:
    """What an answer belongs to, each as a SHA-256 in hex."""

    key_id: str
    request: str  # of the containers of the encrypted image, one after the other
    program: str  # Program.digest: the model's name, version, layers and weights

    @classmethod
    def of(cls, ciphertexts: Sequence[CkksCiphertext], program: str) -> Self:
        """Returns what the answer to these ciphertexts of one image is bound to; both sides work it out on their own."""
        digest = hashlib.sha256()
        for ciphertext in ciphertexts:
            digest.update(ciphertext.to_bytes())
        return cls(key_id=ciphertexts[0].key_id, request=digest.hexdigest(), program=program)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedAnswer:
    """The logits in one CKKS ciphertext of the answer ring: message i at coefficient i * N / len(c0) in steps.

    Both parts are rounded to `answer_bits` of the torus; of c0 only the coefficients that carry a logit exist at all.
    """

    params: ParameterSet
    binding: Binding
    c0: NDArray[np.uint64]  # [messages]
    c1: NDArray[np.uint64]  # [ring_degree]

    @staticmethod
    def _fields(params: ParameterSet, messages: int) -> Sequence[Field]:
        bits = params.answer_bits
        return (
            Field("request", 32, 8),
            Field("program", 32, 8),
            Field("c0", messages, bits),
            Field("c1", params.answer_ring.ring_degree, bits),
        )

    @classmethod
    def nbytes(cls, params: ParameterSet, messages: int) -> int:
        """Bytes of the container of an answer with this many messages."""
        return container.HEADER_BYTES + container.payload_bytes(cls._fields(params, messages))

    def to_bytes(self) -> bytes:
        """Returns the answer in its container."""
        values: dict[str, NDArray[np.unsignedinteger]] = {
            "request": np.frombuffer(bytes.fromhex(self.binding.request), dtype=np.uint8),
            "program": np.frombuffer(bytes.fromhex(self.binding.program), dtype=np.uint8),
            "c0": self.c0,
            "c1": self.c1,
        }
        payload = container.pack_fields(self._fields(self.params, len(self.c0)), values)
        return container.pack(Kind.PACKED_ANSWER, self.params.id, self.binding.key_id, payload)

    @classmethod
    def from_bytes(cls, data: Bytes, params: ParameterSet, binding: Binding, messages: int) -> Self:
        """Reads an answer with `messages` logits to the request and from the model that it must be bound to.

        Raises:
            WireError, ParameterError, KeyMismatchError: see container.unpack.
            WrongAnswerError: it answers another request, or another version of the model made it.
            NotConformantError: the mask is zero.
        """
        fields = cls._fields(params, messages)
        payload = container.unpack(
            data,
            kind=Kind.PACKED_ANSWER,
            params_id=params.id,
            key_id=binding.key_id,
            payload_bytes=container.payload_bytes(fields),
        )
        values = container.unpack_fields(fields, payload)
        request, program = (values.pop(name).astype(np.uint8).tobytes().hex() for name in ("request", "program"))
        if request != binding.request:
            raise WrongAnswerError(f"the answer belongs to request {request}, sent was {binding.request}")
        if program != binding.program:
            raise WrongAnswerError(
                f"program {program} made the answer, the profile names {binding.program}: "
                "the model was changed meanwhile, read its profile again"
            )
        _check_mask(values["c1"], 1 << params.answer_bits)
        return cls(params=params, binding=binding, **values)


def _check_mask(mask: NDArray[np.uint64], modulus: int) -> None:
    if int(mask.max()) >= modulus:
        raise NotConformantError(f"a residue of the ciphertext is {int(mask.max())}, the modulus is {modulus}")
    if not mask.any():
        raise NotConformantError("the ciphertext's mask is zero: nothing is encrypted")
