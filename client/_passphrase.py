"""Secret keys encrypted under a passphrase: scrypt derives a key from it, ChaCha20-Poly1305 encrypts the container of the secret keys.

The payload of a LOCKED_CLIENT_KEYS container is salt, nonce and the encrypted container; the parameter set's id is authenticated with
it. The cost of scrypt belongs to the format: 128 MB of memory and some tenths of a second for every guess.
"""

from __future__ import annotations

import os
import unicodedata

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ciphershift.errors import WrongPassphraseError
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.protocol import container
from ciphershift.protocol.container import HEADER_BYTES, Bytes, Field, Kind

SALT_BYTES, NONCE_BYTES, TAG_BYTES = 16, 12, 16
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**17, 8, 1


def lock(secret: bytes, params: ParameterSet, passphrase: str) -> bytes:
    """Encrypts a container of secret keys under a passphrase; returns a container of its own."""
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    sealed = _cipher(passphrase, salt).encrypt(nonce, secret, bytes.fromhex(params.id))
    return container.pack(Kind.LOCKED_CLIENT_KEYS, params.id, None, salt + nonce + sealed)


def unlock(data: Bytes, params: ParameterSet, passphrase: str) -> bytes:
    """Returns the container that `lock` sealed.

    Raises:
        WireError, ParameterError, KeyMismatchError: see container.unpack.
        WrongPassphraseError: the passphrase is another one, or the file was changed.
    """
    fields = (
        Field("salt", SALT_BYTES, 8),
        Field("nonce", NONCE_BYTES, 8),
        Field("sealed", ClientKeys.nbytes(params) + TAG_BYTES, 8),
    )
    payload = container.unpack(
        data,
        kind=Kind.LOCKED_CLIENT_KEYS,
        params_id=params.id,
        key_id=None,
        payload_bytes=container.payload_bytes(fields),
    )
    salt, nonce, sealed = (
        values.astype(np.uint8).tobytes() for values in container.unpack_fields(fields, payload).values()
    )
    try:
        return _cipher(passphrase, salt).decrypt(nonce, sealed, bytes.fromhex(params.id))
    except InvalidTag:
        raise WrongPassphraseError("the passphrase does not decrypt the secret keys: try again") from None


def is_locked(data: Bytes) -> bool:
    """Whether the container needs a passphrase. Raises WireError if it is no container."""
    return container.read_header(data[:HEADER_BYTES]).kind == Kind.LOCKED_CLIENT_KEYS


def _cipher(passphrase: str, salt: bytes) -> ChaCha20Poly1305:
    key = Scrypt(salt=salt, length=32, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P).derive(
        unicodedata.normalize("NFC", passphrase).encode()
    )
    return ChaCha20Poly1305(key)
