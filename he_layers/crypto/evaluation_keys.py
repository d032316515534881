"""Evaluation keys: what the client sends once (seeded, integers only) and what the server computes with (expanded)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import NotConformantError
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.published import PublishedRow
from ciphershift.he_layers.native import _kernel
from ciphershift.protocol import container
from ciphershift.protocol.container import Bytes, Field, Kind

SEED_BYTES = 32


def _ring_shapes(params: ParameterSet) -> dict[str, tuple[int, int, int, int]]:
    """Of the keys in the look-up ring: entries, rows, bodies, N."""
    levels, bodies, size = params.pbs.levels, params.bodies, params.polynomial_size
    return {
        "bsk": (params.bsk_entries, params.ggsw_rows, bodies, size),
        "merge_key": (params.merge_entries, bodies * levels, bodies, size),
        "split_key": (params.split_entries, levels, 1, size),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationKeys:
    """All keys that the server needs, as bodies and one public seed for all masks.

    Each is an encryption of one secret key under the next: CKKS input secret -> small LWE key -> GLWE key -> CKKS answer secret. Where two
    ciphertexts share a mask, there are two small keys and two GLWE keys, the merge key holds the input secret and the first GLWE key under
    both GLWE keys, and the split key the second GLWE key under the first.
    """

    params: ParameterSet
    mask_seed: bytes  # 32 bytes; every mask is a ChaCha20 stream of it
    input_ksk: NDArray[np.uint32]  # [input ring degree * levels, 1], or nothing where there is a merge key
    ksk: NDArray[np.uint32]  # [k * N * levels, bodies]
    bsk: NDArray[np.uint64]  # [entries, rows, bodies, N], multiples of 2**(64 - bsk_body_bits)
    merge_key: NDArray[np.uint64]  # [merge_entries, bodies * levels, bodies, N], likewise
    split_key: NDArray[np.uint64]  # [split_entries, levels, 1, N], likewise
    answer_key: NDArray[np.uint64]  # [rows, answer ring degree], NTT form

    @staticmethod
    def _fields(params: ParameterSet) -> Sequence[Field]:
        levels, answer = params.key_switch.levels, params.answer_ring
        rings = {name: math.prod(shape) for name, shape in _ring_shapes(params).items()}
        return (
            Field("mask_seed", SEED_BYTES, 8),
            Field("input_ksk", params.input_ksk_words * levels, 32),
            Field("ksk", params.big_dimension * levels * params.bodies, 32),
            *(Field(name, words, params.bsk_body_bits) for name, words in rings.items()),
            Field("answer_key", params.answer_key_rows * answer.ring_degree, answer.modulus_bits),
        )

    @staticmethod
    def published_rows(params: ParameterSet) -> list[PublishedRow]:
        """Returns what the bundle shows to whoever holds it; `mask_seed` is uniform and hides nothing."""

        def key_switch_key(what: str, field: str) -> PublishedRow:
            return PublishedRow(
                what=what,
                fields=(field,),
                key="small_lwe_keys",
                secret="binary",
                dimension=params.lwe_dimension,
                modulus_log2=32.0,
                log2_std_dev=params.lwe_log2_std_dev,
                body_bits=32.0,
                block_length=params.block_length,
            )

        def ring_key(what: str, *fields: str) -> PublishedRow:
            return PublishedRow(
                what=what,
                fields=fields,
                key="big_lwe_keys",
                secret="binary",
                dimension=params.big_dimension,
                modulus_log2=64.0,
                log2_std_dev=params.glwe_log2_std_dev,
                body_bits=params.bsk_body_bits,
            )

        ring, shared = params.answer_ring, params.bodies > 1
        return [
            *([] if shared else [key_switch_key("key switch key, CKKS to small", "input_ksk")]),
            key_switch_key("key switch key, big to small", "ksk"),
            ring_key("bootstrapping key", "bsk"),
            *([ring_key("merge and split keys", "merge_key", "split_key")] if shared else []),
            PublishedRow.of_ring(
                "answer key and public key",
                fields=("answer_key",),
                key="answer_secret",
                ring=ring,
                body_bits=math.log2(ring.modulus),
            ),
        ]

    @classmethod
    def nbytes(cls, params: ParameterSet) -> int:
        """Bytes of the container that holds a bundle under these parameters."""
        return container.HEADER_BYTES + container.payload_bytes(cls._fields(params))

    def to_bytes(self) -> bytes:
        """Returns the bundle in its container; its key_id is the SHA-256 of the payload."""
        values: dict[str, NDArray[np.unsignedinteger]] = {
            "mask_seed": np.frombuffer(self.mask_seed, dtype=np.uint8),
            "input_ksk": self.input_ksk,
            "ksk": self.ksk,
            **{
                name: getattr(self, name) >> np.uint64(64 - self.params.bsk_body_bits)
                for name in _ring_shapes(self.params)
            },
            "answer_key": self.answer_key,
        }
        payload = container.pack_fields(self._fields(self.params), values)
        return container.pack(Kind.EVALUATION_KEYS, self.params.id, None, payload)

    @classmethod
    def from_bytes(cls, data: Bytes, params: ParameterSet) -> Self:
        """Reads a bundle.

        Raises:
            WireError, ParameterError, KeyMismatchError: see container.unpack.
            NotConformantError: a residue of the answer key is not below its modulus.
        """
        fields = cls._fields(params)
        payload = container.unpack(
            data,
            kind=Kind.EVALUATION_KEYS,
            params_id=params.id,
            key_id=None,
            payload_bytes=container.payload_bytes(fields),
        )
        values = container.unpack_fields(fields, payload)
        rings = {name: values[name].reshape(shape) for name, shape in _ring_shapes(params).items()}
        for words in rings.values():
            words <<= np.uint64(64 - params.bsk_body_bits)  # in place: the bootstrapping key is the largest part by far
        highest = int(values["answer_key"].max())
        if highest >= params.answer_ring.modulus:
            raise NotConformantError(
                f"a residue of the answer key is {highest}, the modulus is {params.answer_ring.modulus}"
            )
        return cls(
            params=params,
            mask_seed=values["mask_seed"].astype(np.uint8).tobytes(),
            input_ksk=values["input_ksk"].astype(np.uint32).reshape(-1, 1),
            ksk=values["ksk"].astype(np.uint32).reshape(-1, params.bodies),
            **rings,
            answer_key=values["answer_key"].reshape(params.answer_key_rows, params.answer_ring.ring_degree),
        )

    def expand(self, threads: int = 1) -> ServerKeys:
        """Draws all masks from the seed and brings the keys of the look-up ring to the Fourier domain, on `threads` threads."""
        params = self.params

        def key_switch_key(bodies: NDArray[np.uint32], first_row: int) -> NDArray[np.uint32]:
            return _kernel.expand_key_switch_key(
                bodies,
                mask_seed=self.mask_seed,
                first_row=first_row,
                output_dimension=params.lwe_dimension,
                threads=threads,
            )

        def ring_key(bodies: NDArray[np.uint64], first_entry: int) -> NDArray[np.float64]:
            return _kernel.expand_ring_key(
                bodies,
                mask_seed=self.mask_seed,
                first_entry=first_entry,
                glwe_dimension=params.glwe_dimension,
                base_log=params.pbs.base_log,
                levels=params.pbs.levels,
                threads=threads,
            )

        return ServerKeys(
            params=params,
            input_ksk=key_switch_key(self.input_ksk, 0),
            ksk=key_switch_key(self.ksk, len(self.input_ksk)),
            fourier_bsk=ring_key(self.bsk, 0),
            merge_key=ring_key(self.merge_key, params.bsk_entries),
            split_key=ring_key(self.split_key, params.bsk_entries + params.merge_entries),
            answer_key=_kernel.expand_answer_key(
                self.answer_key,
                mask_seed=self.mask_seed,
                modulus=params.answer_ring.modulus,
                base_log=params.answer.base_log,
                levels=params.answer.levels,
            ),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerKeys:
    """Evaluation keys ready for the kernel, five to eleven times the size of the bundle they came from."""

    params: ParameterSet
    input_ksk: NDArray[np.uint32]  # [tiles, input ring degree * levels, 32]: n + 1 columns in tiles of 32
    ksk: NDArray[np.uint32]  # [tiles, k * N * levels, 32]: n + bodies columns
    fourier_bsk: NDArray[
        np.float64
    ]  # [steps * ggsws_per_step, N/2, k + bodies, rows, (re, im)]; steps: see ParameterSet
    merge_key: NDArray[np.float64]  # [merge_entries, N/2, k + bodies, bodies * levels, (re, im)]
    split_key: NDArray[np.float64]  # [split_entries, N/2, k + 1, levels, (re, im)]
    answer_key: NDArray[np.uint64]  # [rows, (body, mask), answer ring degree]

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        rings = self.fourier_bsk.nbytes + self.merge_key.nbytes + self.split_key.nbytes
        return self.input_ksk.nbytes + self.ksk.nbytes + rings + self.answer_key.nbytes
