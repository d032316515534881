"""OpenFHE's EvalFBT: ReLU of 65 536 encrypted 4-bit numbers at once, through CKKS bootstrapping. Runs in its own environment.

Settings as in the library's example functional-bootstrapping-ckks (level budget 3 and 3, three key digits, SPARSE_ENCAPSULATED secrets),
but with the ring degree that its tables of the HE standard ask for at 128 bits.
"""

import json
import os
import time
from importlib.metadata import version

from openfhe import (
    CCParamsCKKSRNS,
    CryptoContext,
    GenCryptoContext,
    GetHermiteTrigCoefficients,
    PKESchemeFeature,
    ScalingTechnique,
    SchemeletRLWEMP,
    SecretKeyDist,
    SecurityLevel,
)

MESSAGES = 16
INITIAL_MODULUS, MODULUS, SCALE = 1 << 60, 1 << 40, 32
RING_DEGREE = 1 << 16
BUDGET = [3, 3]


def relu(value: int) -> int:
    """Of a signed 4-bit number, modulo 16."""
    return value % MESSAGES if value % MESSAGES < MESSAGES // 2 else 0


def main() -> None:
    """Times one bulk look-up, whose price is the same for one number and for all; compares every result."""
    threads = int(os.environ["OMP_NUM_THREADS"])
    coefficients = GetHermiteTrigCoefficients(relu, MESSAGES, 1, SCALE)
    slots, bits = RING_DEGREE // 2, MODULUS.bit_length() - 1
    secrets = SecretKeyDist.SPARSE_ENCAPSULATED
    depth = CryptoContext.GetFBTDepth(BUDGET, coefficients, MESSAGES, 1, secrets)
    settings = CCParamsCKKSRNS()
    settings.SetSecretKeyDist(secrets)
    settings.SetSecurityLevel(SecurityLevel.HEStd_128_classic)
    settings.SetScalingModSize(bits)
    settings.SetFirstModSize(bits)
    settings.SetScalingTechnique(ScalingTechnique.FLEXIBLEAUTO)
    settings.SetNumLargeDigits(3)
    settings.SetBatchSize(slots)
    settings.SetRingDim(RING_DEGREE)
    settings.SetMultiplicativeDepth(depth)
    context = GenCryptoContext(settings)
    for feature in ("PKE", "KEYSWITCH", "LEVELEDSHE", "ADVANCEDSHE", "FHE"):
        context.Enable(getattr(PKESchemeFeature, feature))
    started = time.perf_counter()
    keys = context.KeyGen()
    context.EvalFBTSetup(coefficients, slots, MESSAGES, MESSAGES, MODULUS, keys.publicKey, [0, 0], BUDGET, 0, 0, 1)
    context.EvalBootstrapKeyGen(keys.secretKey, slots)
    context.EvalMultKeyGen(keys.secretKey)
    keygen = time.perf_counter() - started
    values = [(7 * place + place // MESSAGES) % MESSAGES for place in range(RING_DEGREE)]
    elements = SchemeletRLWEMP.GetElementParams(keys.secretKey, depth)
    encrypted = SchemeletRLWEMP.EncryptCoeff(values, INITIAL_MODULUS, MESSAGES, keys.secretKey, elements)
    started = time.perf_counter()
    SchemeletRLWEMP.ModSwitch(encrypted, MODULUS, INITIAL_MODULUS)
    as_ckks = SchemeletRLWEMP.ConvertRLWEToCKKS(context, encrypted, keys.publicKey, MODULUS, slots, depth)
    looked_up = context.EvalFBT(as_ckks, coefficients, MESSAGES.bit_length() - 1, elements.GetModulus(), SCALE, 0, 1)
    result = SchemeletRLWEMP.ConvertCKKSToRLWE(looked_up, MODULUS)
    seconds = time.perf_counter() - started
    found = SchemeletRLWEMP.DecryptCoeff(result, MODULUS, MESSAGES, keys.secretKey, elements, slots, RING_DEGREE)
    wrong = sum((a - relu(b)) % MESSAGES != 0 for a, b in zip(found, values, strict=True))
    print(  # noqa: T201
        json.dumps(
            {
                "op": "lookup_4bit",
                "system": "OpenFHE EvalFBT",
                "version": version("openfhe"),
                "settings": f"CKKS, N = {RING_DEGREE}, depth {depth}, level budget 3 and 3, SPARSE_ENCAPSULATED",
                "lookup_error": wrong / RING_DEGREE,
                "wrong": wrong,
                "threads": threads,
                "batch": RING_DEGREE,
                "median_us_per_item": round(1e6 * seconds * threads / RING_DEGREE, 1),
                "seconds_per_call": round(seconds, 3),
                "keygen_s": round(keygen, 2),
                "security_bits": 128,
            }
        )
    )


if __name__ == "__main__":
    main()
