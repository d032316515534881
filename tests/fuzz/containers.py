"""Containers: ciphertexts, keys and answers as server and client read them; keys that are accepted are expanded by the kernel."""

import hashlib

from ciphershift.errors import CiphershiftError
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.protocol.container import HEADER_BYTES
from tests.attacks.test_hostile_containers import TARGETS
from tests.fuzz.target import run

NAMES = sorted(TARGETS)


def one(data: bytes) -> None:
    """Byte 0 names the target, byte 1 says whether bytes are changed before or behind the digest."""
    if len(data) < 8:
        return
    target = TARGETS[NAMES[data[0] % len(NAMES)]]
    repaired, start = bool(data[1] & 1), int.from_bytes(data[2:6], "little") % len(target.good)
    changes = data[6 : 6 + len(target.good) - start]
    damaged = bytearray(target.good[:start] + changes + target.good[start + len(changes) :])
    if data[1] & 2:
        del damaged[start + len(changes) :]
    if repaired and len(damaged) >= HEADER_BYTES:
        payload = bytes(damaged[HEADER_BYTES:])
        if target.names_itself:
            damaged[40:72] = hashlib.sha256(payload).digest()
        damaged = bytearray(target.sealed(bytes(damaged[: HEADER_BYTES - 32]), payload))
    try:
        read = target.read(bytes(damaged))
    except CiphershiftError:
        return
    if isinstance(read, EvaluationKeys):
        read.expand()


if __name__ == "__main__":
    run(
        "containers",
        one,
        [bytes([n, mode, 0, 0, 0, 0]) + b"CSFT" for n in range(len(NAMES)) for mode in range(4)],
        ["ciphershift.protocol", "ciphershift.he_layers.crypto"],
    )
