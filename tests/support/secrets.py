"""What a secret looks like in bytes: a window of every secret in every form that code of ours or of SEAL brings it into."""

import numpy as np

from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.native import _kernel
from ciphershift.protocol.container import pack_bits

START, LENGTH = 16, 48  # the window of coefficients; the shortest key has 64
SECRETS = ("input_secret", "answer_secret", "small_lwe_key", "glwe_key")
Needles = dict[str, bytes]


def needles(keys: ClientKeys) -> Needles:
    """The window of every secret as bytes, by secret and form."""
    found: Needles = {}
    rings = {"input_secret": keys.params.input_ring, "answer_secret": keys.params.answer_ring}
    for name in SECRETS:
        whole = getattr(keys, name).reshape(-1)
        window = whole[START : START + LENGTH]
        found |= {f"{name}, {np.dtype(form)}": window.astype(form).tobytes() for form in ("i1", "i4", "i8", "f8")}
        found[f"{name}, plus one"] = (window + 1).astype(np.uint8).tobytes()
        found[f"{name}, packed as in the key file"] = pack_bits((window + 1).astype(np.uint8), 2)
        if name in rings:
            modulus = rings[name].modulus
            residues = (whole.astype(np.int64) % modulus).astype(np.uint64)
            found[f"{name}, residues"] = residues[START : START + LENGTH].tobytes()
            found[f"{name}, NTT"] = _kernel.ntt_forward(residues, modulus)[START : START + LENGTH].tobytes()
        else:
            for order in ("little", "big"):
                found[f"{name}, one bit each, {order}"] = np.packbits(window, bitorder=order).tobytes()
    assert len(set(found.values())) == len(found)
    return found


def search(data: bytes, wanted: Needles) -> set[str]:
    """The needles that are in these bytes."""
    return {name for name, needle in wanted.items() if needle in data}
