"""How strong a parameter set is: the rows that all published objects declare, and the refusal of a set with a weak one."""

from __future__ import annotations

from ciphershift.errors import InsecureParamsError
from ciphershift.he_layers.crypto.ciphertexts import CkksCiphertext, ProductCiphertext
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.published import MINIMUM_BITS, PublishedRow

PUBLISHED = (CkksCiphertext, ProductCiphertext, EvaluationKeys)
"""Every type whose bytes leave the client."""


def published_rows(params: ParameterSet) -> list[PublishedRow]:
    """Returns one row per kind of sample that leaves the client under these parameters."""
    return [row for published in PUBLISHED for row in published.published_rows(params)]


def security_bits(params: ParameterSet) -> float:
    """Returns the bits of the weakest published row as the lattice-estimator prints them; 0 below the dimensions of the closed forms."""
    return min(row.bits for row in published_rows(params))


def exact_security_bits(params: ParameterSet) -> float:
    """Returns the bits of the weakest published row by the exact count of guesses; 0 below the dimensions of the closed forms."""
    return min(row.exact_bits for row in published_rows(params))


def require_secure(params: ParameterSet) -> None:
    """Refuses a set with a row below 128.0 bits by either count, in steps of a tenth.

    Raises:
        InsecureParamsError: names every row that is too weak, and its noise.
    """
    weak = [
        f"{row.what} (dimension {row.dimension}, noise 2^{row.log2_std_dev:.2f}) has {row.bits:.1f} bits by the estimator, "
        f"{row.exact_bits:.1f} by the exact count"
        for row in published_rows(params)
        if round(min(row.bits, row.exact_bits), 1) < MINIMUM_BITS
    ]
    if weak:
        raise InsecureParamsError(
            f"{params.name}: {'; '.join(weak)}; need {MINIMUM_BITS:.0f}: raise the dimension or the noise"
        )
