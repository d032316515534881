"""The one door to TenSEAL (SEAL): secrets, encoding in coefficients, encryption and decryption in a ring with one prime.

SEAL's encoder speaks complex slots: slot j is the message polynomial at zeta**(3**j), zeta = exp(i pi / N). A message in *coefficients* is
brought there by evaluating it at all odd powers of zeta, and back by the inverse. Objects pass in and out in SEAL's own format 4.x,
uncompressed, built from numbers this process made or has checked: foreign bytes never reach SEAL's parser.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import tenseal.sealapi as sealapi
from numpy.typing import NDArray

from ciphershift.he_layers.crypto.params import CkksRing
from ciphershift.he_layers.native import _kernel

_HEADER = struct.Struct("<HBBBBHQ")  # magic, header size, major, minor, compression, reserved, total size
_MAGIC, _VERSION = 0xA15E, (4, 3)


@cache
def _context(ring: CkksRing) -> sealapi.SEALContext:
    parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(ring.ring_degree)
    parameters.set_coeff_modulus([sealapi.Modulus(ring.modulus)])
    context = sealapi.SEALContext(parameters, True, sealapi.SEC_LEVEL_TYPE.TC128)
    assert context.parameters_set(), (
        context.parameters_error_message()
    )  # a registered ring that SEAL refuses is our own fault
    return context


@cache
def _slot_order(ring_degree: int) -> NDArray[np.int64]:
    """Index t of the odd power 2t + 1 that each slot stands at: (3**j mod 2N - 1) / 2."""
    powers = np.ones(ring_degree // 2, dtype=np.int64)
    for j in range(1, len(powers)):
        powers[j] = powers[j - 1] * 3 % (2 * ring_degree)
    return (powers - 1) // 2


def slots_from_coefficients(coefficients: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Evaluates a real polynomial of N coefficients at the N/2 roots that SEAL's slots stand for."""
    n = len(coefficients)
    twist = np.exp(1j * np.pi * np.arange(n) / n)
    return np.asarray(np.fft.ifft(coefficients * twist) * n)[_slot_order(n)]


def coefficients_from_slots(slots: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Inverse of slots_from_coefficients: the other half of the evaluations are the conjugates."""
    n = 2 * len(slots)
    order = _slot_order(n)
    values = np.empty(n, dtype=np.complex128)
    values[order] = slots
    values[n - 1 - order] = slots.conj()
    return np.asarray((np.fft.fft(values) / n * np.exp(-1j * np.pi * np.arange(n) / n)).real)


def generate_secret(ring: CkksRing) -> NDArray[np.int8]:
    """Draws a uniform ternary secret with SEAL's key generator and returns its coefficients, int8 [N]."""
    generator = sealapi.KeyGenerator(_context(ring))
    key = generator.secret_key()
    data = key.data()  # refers into key and generator: all three names must live on
    ntt = np.array([data[j] for j in range(ring.ring_degree)], dtype=np.uint64)
    residues = _kernel.ntt_inverse(ntt, ring.modulus)
    secret = np.where(residues == ring.modulus - 1, -1, residues.astype(np.int64))
    assert np.abs(secret).max() == 1, "SEAL's secret is not ternary: its transform is not the one we know"
    return secret.astype(np.int8)


def encrypt(ring: CkksRing, secret: NDArray[np.int8], coefficients: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Encrypts a polynomial, given in units of the modulus's residues, under the secret.

    Returns:
        residues uint64 [2, N], (c0, c1) in coefficient form; c0 + c1 s = coefficients + e.

    Noise: SEAL's centered binomial error, variance 10.5, and 1/12 for the encoder's rounding.
    """
    context = _context(ring)
    plain, cipher = sealapi.Plaintext(), sealapi.Ciphertext()
    slots = slots_from_coefficients(coefficients)
    sealapi.CKKSEncoder(context).encode([complex(z) for z in slots], 1.0, plain)
    sealapi.Encryptor(context, _load_secret(ring, secret)).encrypt_symmetric(plain, cipher)
    words = np.array([cipher[j] for j in range(2 * ring.ring_degree)], dtype=np.uint64).reshape(2, ring.ring_degree)
    return np.stack([_kernel.ntt_inverse(part, ring.modulus) for part in words])


def decrypt(ring: CkksRing, secret: NDArray[np.int8], residues: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Decrypts (c0, c1), residues uint64 [2, N] in coefficient form, to the coefficients of the message, float64 [N]."""
    context = _context(ring)
    words = np.concatenate([_kernel.ntt_forward(part, ring.modulus) for part in residues])
    cipher, plain = sealapi.Ciphertext(context), sealapi.Plaintext()
    fields = struct.pack(
        "<BQQQdQ", 1, 2, ring.ring_degree, 1, 1.0, 1
    )  # NTT form, parts, degree, primes, scale, correction
    with _as_file(_object(_parms_id(context) + fields + _array(words))) as path:
        cipher.load(context, path)
    sealapi.Decryptor(context, _load_secret(ring, secret)).decrypt(cipher, plain)
    return coefficients_from_slots(np.array(sealapi.CKKSEncoder(context).decode_complex(plain)))


def _load_secret(ring: CkksRing, secret: NDArray[np.int8]) -> sealapi.SecretKey:
    context, key = _context(ring), sealapi.SecretKey()
    words = _kernel.ntt_forward((secret.astype(np.int64) % ring.modulus).astype(np.uint64), ring.modulus)
    plaintext = _parms_id(context) + struct.pack("<Qd", ring.ring_degree, 1.0) + _array(words)
    with _as_file(_object(plaintext)) as path:
        key.load(context, path)
    return key


def _parms_id(context: sealapi.SEALContext) -> bytes:
    return struct.pack("<4Q", *context.first_parms_id())


def _array(words: NDArray[np.uint64]) -> bytes:
    return _object(struct.pack("<Q", len(words)) + words.astype("<u8").tobytes())


def _object(body: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, _HEADER.size, *_VERSION, 0, 0, _HEADER.size + len(body)) + body


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """Gives SEAL, which loads from paths only, a path to these bytes: in memory on Linux, else a private file that is overwritten."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("seal"), "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile(buffering=0) as file:  # mode 0600, gone when closed
            file.write(data)
            try:
                yield file.name
            finally:
                file.seek(0)
                file.write(bytes(len(data)))
                os.fsync(file.fileno())
