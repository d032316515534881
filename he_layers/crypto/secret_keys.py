"""Secret keys: made, kept and used on the client only. Nothing on the server path may import this module (a contract in CI).

Randomness comes from the operating system: SEAL draws the CKKS secrets, the kernel's ChaCha20 streams are seeded by os.urandom, with one
seed for the public masks and others for every secret.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import NotConformantError, WrongKeyError
from ciphershift.he_layers.crypto import seal
from ciphershift.he_layers.crypto.evaluation_keys import SEED_BYTES, EvaluationKeys
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.published import SEAL_STD_DEV
from ciphershift.he_layers.native import _kernel
from ciphershift.protocol import container
from ciphershift.protocol.container import Bytes, Field, Kind

_PAIR_COEFFICIENTS = 16
PAIR_BYTES = container.HEADER_BYTES + SEED_BYTES + 4 * _PAIR_COEFFICIENTS * 32 * 2
"""What `ClientKeys.require_pair` reads of a bundle at most: no set has more than 32 levels or two bodies."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class ClientKeys:
    """The four secrets of one client; never printed, compared or pickled."""

    params: ParameterSet
    input_secret: NDArray[np.int8] = field(repr=False)  # ternary, input ring
    answer_secret: NDArray[np.int8] = field(repr=False)  # ternary, answer ring
    small_lwe_key: NDArray[np.int8] = field(
        repr=False
    )  # binary, n for each body; in blocks with at most a single one if params.block_length > 1
    glwe_key: NDArray[np.int8] = field(repr=False)  # binary, [bodies * k, N]; flat it is the big LWE keys

    @classmethod
    def generate(cls, params: ParameterSet) -> Self:
        """Draws fresh keys."""
        glwe_bits = _kernel.uniform_binary(os.urandom(32), params.bodies * params.big_dimension, 0)
        return cls(
            params=params,
            input_secret=seal.generate_secret(params.input_ring),
            answer_secret=seal.generate_secret(params.answer_ring),
            small_lwe_key=_kernel.block_binary(
                os.urandom(32), params.bodies * params.lwe_dimension // params.block_length, params.block_length
            ),
            glwe_key=glwe_bits.reshape(-1, params.polynomial_size),
        )

    @property
    def small_lwe_keys(self) -> NDArray[np.int8]:
        """The small key of each body, [bodies, n]."""
        return self.small_lwe_key.reshape(self.params.bodies, -1)

    @property
    def big_lwe_keys(self) -> NDArray[np.int8]:
        """The keys of look-ups, [bodies, k * N]: all coefficients of each body's GLWE key; results are under the first."""
        return self.glwe_key.reshape(self.params.bodies, -1)

    @property
    def glwe_keys(self) -> NDArray[np.int8]:
        """The same by polynomials, [bodies, k, N]."""
        return self.glwe_key.reshape(self.params.bodies, self.params.glwe_dimension, -1)

    @property
    def merge_sources(self) -> NDArray[np.int8]:
        """What the merge key brings to each body, [entries, bodies, bodies, N]: the value for one body leaves the others as they are."""
        params = self.params
        known = np.concatenate([self.input_secret, self.big_lwe_keys[0]])[
            : params.merge_entries * params.polynomial_size
        ]
        return known.reshape(-1, 1, 1, params.polynomial_size) * np.eye(params.bodies, dtype=np.int8)[:, :, None]

    @property
    def bsk_bits(self) -> NDArray[np.int8]:
        """What the bootstrapping key encrypts, [entries, bodies]: the small keys' bits; or s (1 - t), (1 - s) t, s t for each pair s, t."""
        bits = self.small_lwe_keys
        if self.params.grouping_factor > 1:
            s, t = bits[:, 0::2], bits[:, 1::2]
            bits = np.stack([s * (1 - t), (1 - s) * t, s * t], axis=2).reshape(len(bits), -1)
        return np.ascontiguousarray(bits.T)

    def evaluation_keys(self, threads: int = 2) -> EvaluationKeys:
        """Encrypts each secret under the next; fresh masks and noise at every call.

        Noise: 2**lwe_log2_std_dev and 2**glwe_log2_std_dev of the torus, sqrt(10.5) modulo the answer ring's prime.
        """
        self.require_usable()
        params, mask_seed = self.params, os.urandom(SEED_BYTES)

        def key_switch_key(sources: NDArray[np.int8], first_row: int) -> NDArray[np.uint32]:
            return _kernel.key_switch_key_bodies(
                sources,
                self.small_lwe_keys[: len(sources)],
                base_log=params.key_switch.base_log,
                levels=params.key_switch.levels,
                std_dev=2.0**params.lwe_log2_std_dev,
                first_row=first_row,
                mask_seed=mask_seed,
                noise_seed=os.urandom(32),
                threads=threads,
            )

        def ring_switch_key(
            sources: NDArray[np.int8], targets: NDArray[np.int8], first_entry: int
        ) -> NDArray[np.uint64]:
            return _kernel.ring_switch_key_bodies(
                np.ascontiguousarray(sources),
                targets,
                base_log=params.pbs.base_log,
                levels=params.pbs.levels,
                std_dev=2.0**params.glwe_log2_std_dev,
                first_entry=first_entry,
                mask_seed=mask_seed,
                noise_seed=os.urandom(32),
                body_bits=params.bsk_body_bits,
                threads=threads,
            )

        input_ksk = key_switch_key(self.input_secret[None, : params.input_ksk_words], 0)
        after_merge = params.bsk_entries + params.merge_entries
        return EvaluationKeys(
            params=params,
            mask_seed=mask_seed,
            input_ksk=input_ksk,
            ksk=key_switch_key(self.big_lwe_keys, len(input_ksk)),
            bsk=_kernel.bootstrapping_key_bodies(
                self.bsk_bits,
                self.glwe_keys,
                base_log=params.pbs.base_log,
                levels=params.pbs.levels,
                std_dev=2.0**params.glwe_log2_std_dev,
                mask_seed=mask_seed,
                noise_seed=os.urandom(32),
                body_bits=params.bsk_body_bits,
                threads=threads,
            ),
            merge_key=ring_switch_key(self.merge_sources, self.glwe_keys, params.bsk_entries),
            split_key=ring_switch_key(
                self.glwe_keys[1:].reshape(-1, 1, 1, params.polynomial_size), self.glwe_keys[:1], after_merge
            ),
            answer_key=_kernel.answer_key_bodies(
                self.big_lwe_keys[0],
                self.answer_secret,
                modulus=params.answer_ring.modulus,
                base_log=params.answer.base_log,
                levels=params.answer.levels,
                std_dev=SEAL_STD_DEV,
                mask_seed=mask_seed,
                noise_seed=os.urandom(32),
            ),
        )

    def require_pair(self, bundle: Bytes) -> None:
        """Refuses evaluation keys that were made from other secret keys.

        The first rows of the bundle's first key switch key are made again from its public seed, without noise: what is left must be noise.

        Args:
            bundle: the container of the evaluation keys, or its first PAIR_BYTES bytes.

        Raises:
            WrongKeyError: they belong to other secrets, or the bundle is cut short.
        """
        params = self.params
        sources = self.input_secret[None] if params.input_ksk_words else self.big_lwe_keys
        words = _PAIR_COEFFICIENTS * params.key_switch.levels * len(sources)
        seed = bytes(bundle[container.HEADER_BYTES :][:SEED_BYTES])
        given = bytes(bundle[container.HEADER_BYTES + SEED_BYTES :][: 4 * words])
        if len(given) == 4 * words:
            without_noise = _kernel.key_switch_key_bodies(
                np.ascontiguousarray(sources[:, :_PAIR_COEFFICIENTS]),
                self.small_lwe_keys[: len(sources)],
                base_log=params.key_switch.base_log,
                levels=params.key_switch.levels,
                std_dev=0.0,
                first_row=0,
                mask_seed=seed,
                noise_seed=bytes(32),
                threads=1,
            )
            noise = (np.frombuffer(given, dtype="<u4") - without_noise.reshape(-1)).astype(np.uint32).view(
                np.int32
            ) / 2.0**32
            if np.sqrt(np.mean(noise**2)) < 8 * 2.0**params.lwe_log2_std_dev:
                return
        raise WrongKeyError("the evaluation keys were made from other secret keys than these")

    @staticmethod
    def _fields(params: ParameterSet) -> Sequence[Field]:
        return (
            Field("input_secret", params.input_ring.ring_degree, 2),
            Field("answer_secret", params.answer_ring.ring_degree, 2),
            Field("small_lwe_key", params.bodies * params.lwe_dimension, 2),
            Field("glwe_key", params.bodies * params.big_dimension, 2),
        )

    @classmethod
    def nbytes(cls, params: ParameterSet) -> int:
        """Bytes of the container of the secrets."""
        return container.HEADER_BYTES + container.payload_bytes(cls._fields(params))

    def to_bytes(self) -> bytes:
        """Returns the secrets in their container, for the client's keystore only."""
        values = {f.name: (getattr(self, f.name) + 1).astype(np.uint8) for f in self._fields(self.params)}
        payload = container.pack_fields(self._fields(self.params), values)
        return container.pack(Kind.CLIENT_KEYS, self.params.id, None, payload)

    @classmethod
    def from_bytes(cls, data: Bytes, params: ParameterSet) -> Self:
        """Reads what to_bytes wrote.

        Raises:
            WireError, ParameterError, KeyMismatchError: see container.unpack.
            NotConformantError: a coefficient is not what its key allows.
        """
        fields = cls._fields(params)
        payload = container.unpack(
            data, kind=Kind.CLIENT_KEYS, params_id=params.id, key_id=None, payload_bytes=container.payload_bytes(fields)
        )
        keys = {
            name: value.astype(np.int8) - np.int8(1) for name, value in container.unpack_fields(fields, payload).items()
        }
        for name, key in keys.items():
            if key.max() > 1 or (name in ("small_lwe_key", "glwe_key") and key.min() < 0):
                raise NotConformantError(
                    f"{name} holds a coefficient that it may not; the key file is damaged, make new keys"
                )
        if keys["small_lwe_key"].reshape(-1, params.block_length).sum(axis=1).max() > 1:
            raise NotConformantError(
                f"small_lwe_key has a block of {params.block_length} bits with two ones; the key file is damaged, make new keys"
            )
        keys["glwe_key"] = keys["glwe_key"].reshape(-1, params.polynomial_size)
        return cls(params=params, **keys)

    def erase(self) -> None:
        """Overwrites the secrets with zeros; the keys cannot be used any more.

        Copies that Python and SEAL made on the way (bytes of files, temporary arrays) are beyond reach: see SECURITY.md.
        """
        for secret in (self.input_secret, self.answer_secret, self.small_lwe_key, self.glwe_key):
            secret.fill(0)

    def require_usable(self) -> None:
        """Refuses keys that were erased: what is encrypted under zeros is not encrypted.

        Raises:
            WrongKeyError: they were.
        """
        if not (self.input_secret.any() and self.answer_secret.any()):
            raise WrongKeyError("the secret keys were erased when their client was closed: open them again")

    def __repr__(self) -> str:
        """Names the parameters, never the secrets."""
        return f"ClientKeys({self.params.name}, <secret>)"

    def __reduce__(self) -> NoReturn:
        """Refuses to be pickled: secrets leave this process only through to_bytes."""
        raise TypeError("ClientKeys cannot be pickled; store them with the keystore")
