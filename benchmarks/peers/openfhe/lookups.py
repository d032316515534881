"""OpenFHE's EvalFunc: ReLU of encrypted 4-bit numbers one by one, by functional bootstrapping. Runs in its own environment.

Settings as in the library's example eval-function (STD128, arbitrary functions), with the least ring and input modulus that hold 4 bits.
"""

import argparse
import json
import os
import time
from importlib.metadata import version

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from openfhe import BINFHE_PARAMSET, BinFHEContext

MESSAGES = 16
INPUT_BITS, RING_DEGREE = 12, 4096
ITEMS = 16


def relu(value: int, modulus: int) -> int:
    """Of a signed number modulo ``modulus``."""
    return value if value < modulus // 2 else 0


def main() -> None:
    """Prints one object."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    context = BinFHEContext()
    context.GenerateBinFHEContext(BINFHE_PARAMSET.STD128, True, INPUT_BITS, RING_DEGREE)
    if context.GetMaxPlaintextSpace() < MESSAGES:
        raise RuntimeError("this context does not hold 4 bits")
    secret = context.KeyGen()
    started = time.perf_counter()
    context.BTKeyGen(secret)
    keygen, seconds, wrong = time.perf_counter() - started, [], 0
    table = context.GenerateLUTviaFunction(relu, MESSAGES)
    for value in range(ITEMS):
        encrypted = context.Encrypt(secret, value % MESSAGES, p=MESSAGES)
        started = time.perf_counter()
        answer = context.EvalFunc(encrypted, table)
        seconds.append(time.perf_counter() - started)
        wrong += int(context.Decrypt(secret, answer, MESSAGES) != relu(value % MESSAGES, MESSAGES))
    low, median, high = np.quantile(seconds, [0.1, 0.5, 0.9]) * 1e6
    print(  # noqa: T201
        json.dumps(
            {
                "op": "lookup_4bit",
                "system": "OpenFHE EvalFunc",
                "version": version("openfhe"),
                "settings": f"STD128, arbitrary functions, N = {RING_DEGREE}, input modulus 2^{INPUT_BITS}",
                "wrong": wrong,
                "threads": 1,
                "batch": ITEMS,
                "median_us_per_item": round(float(median), 1),
                "p10": round(float(low), 1),
                "p90": round(float(high), 1),
                "keygen_s": round(keygen, 3),
                "security_bits": 128,
            }
        )
    )


if __name__ == "__main__":
    main()
