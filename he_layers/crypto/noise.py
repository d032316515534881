"""How much noise each primitive adds: variances on the torus (fractions of one turn, squared), from a parameter set.

The errors are independent and centered, so variances add. Every formula is held to a measurement by tests/he_layers/crypto/test_noise.py,
but split_variance, which is merge_variance of one value and too small to be seen beside a bootstrap.
Notation: n small dimension, k N big dimension, B = 2**base_log, L levels, s key, sigma noise of a key row.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from ciphershift.he_layers.crypto.params import PRODUCT_BODY_BITS, PRODUCT_MASK_BITS, Gadget, ParameterSet
from ciphershift.he_layers.crypto.published import SEAL_STD_DEV

# Rounding of the double-precision transforms, as a multiple of 2**-53 times the size of an external product's sum. Measured with
# AVX-512 under four sets, and with AVX2 and the portable kernel under one (18 000 bootstraps and more each, +- 0.1): 3.7 to 3.9 with fused
# multiply-add, 4.4 without it (the portable kernel).
FFT_ROUNDING = 4.0


def fresh_ckks_variance(params: ParameterSet) -> float:
    """An encrypted pixel as it arrives: SEAL's error and the encoder's rounding modulo q, c0 rounded to input_body_bits."""
    return (SEAL_STD_DEV**2 + 1 / 12) / params.input_ring.modulus**2 + math.exp2(-2 * params.input_body_bits) / 12


def fresh_product_variance(params: ParameterSet) -> float:
    """An encrypted number as it arrives in the answer ring: SEAL's error and the encoder's rounding modulo q, and both parts rounded.

    The rounding of c1 is multiplied by the ternary secret, of whose N coefficients two thirds are not zero.
    """
    ring = params.answer_ring
    rounded = math.exp2(-2 * PRODUCT_BODY_BITS) + ring.ring_degree * 2 / 3 * math.exp2(-2 * PRODUCT_MASK_BITS)
    return (SEAL_STD_DEV**2 + 1 / 12) / ring.modulus**2 + rounded / 12


@cache
def _digit_mean_square(gadget: Gadget) -> float:
    """Mean square of a key switch digit over uniform words, by enumerating three digits.

    A digit depends on those to its right and on the next one only; the first, which has no next, is one of L.
    """
    base, levels = 1 << gadget.base_log, min(gadget.levels, 3)
    words = np.arange(base**levels)
    squares = []
    for level in range(levels):
        digit = words % base
        words = words // base
        last = level == levels - 1
        # A tie goes to the side that makes the next digit smaller; for the first digit both sides are the same size.
        carry = (digit > base // 2) | ((digit == base // 2) & (words % base >= base // 2 if not last else False))
        digit = np.where(carry, digit - base, digit)
        words = words + carry
        squares.append(float(np.mean(digit**2)))
    middle = squares[1] if levels > 2 else squares[0]
    return (
        (squares[0] + squares[-1] + middle * (gadget.levels - 2)) / gadget.levels if gadget.levels > 1 else squares[0]
    )


def _key_switch(params: ParameterSet, dimension: int, key_variance: float) -> float:
    gadget = params.key_switch
    rows = dimension * gadget.levels * _digit_mean_square(gadget) * math.exp2(2 * params.lwe_log2_std_dev)
    rounding = dimension * key_variance * math.exp2(-2 * gadget.base_log * gadget.levels) / 12
    return rows + rounding


def input_key_switch_variance(params: ParameterSet) -> float:
    """CKKS secret -> small key: N L E[d^2] sigma^2 for the rows, N B^-2L / 12 * E[s^2] for what the digits leave out (s ternary, 2/3)."""
    return _key_switch(params, params.input_ring.ring_degree, 2 / 3)


def key_switch_variance(params: ParameterSet) -> float:
    """Big -> small key: likewise, with Var[s] = 1/4 for a binary key, since the mean of what is left out is taken from the body.

    Values that share a mask have one key switch, each with noise of its own.
    """
    return _key_switch(params, params.big_dimension, 1 / 4)


def modulus_switch_variance(params: ParameterSet) -> float:
    """Rounding to 2N: (n Var[s] + 1) / 12 in units of 1 / 2N, since the mean is taken from the body.

    Var[s] is 1/4 for a uniform key and l / (l + 1)^2 for one in blocks of l bits: the roundings of a block's words are independent, so
    that the covariances of its bits do not enter.
    """
    return (params.lwe_dimension * params.small_key_variance + 1) / 12 / (2 * params.polynomial_size) ** 2


def _ring_rows(params: ParameterSet, rows: int) -> float:
    """A sum of so many products of digits with rows of a key in the look-up ring.

    N B^2/12 sigma^2 each for the key's noise, with its rounding on the wire, and the transforms' rounding, amplified by the key like any
    error of the masks.
    """
    n, base = params.polynomial_size, math.exp2(params.pbs.base_log)
    sigma2 = math.exp2(2 * params.glwe_log2_std_dev) + math.exp2(-2 * params.bsk_body_bits) / 12
    transform = (FFT_ROUNDING * 2.0**-53) ** 2 * base**2 / 144 * (1 + params.big_dimension / 2)
    return rows * n * ((base**2 + 2) / 12 * sigma2 + transform)


def _ring_left_out(params: ParameterSet, key_square: float) -> float:
    """What the digits of a mask leave out, times a key whose coefficients have this sum of squares."""
    return key_square * math.exp2(-2 * params.pbs.base_log * params.pbs.levels) / 12


def merge_variance(params: ParameterSet, *, from_input: bool, from_big: bool) -> float:
    """CKKS secret, big key or both -> a mask that w values share: w D L B^2/12 sigma^2 for the rows, D E[s^2] B^-2L / 12 for the rest.

    The rest is what the digits leave out. D is how many words a mask has, E[s^2] is 2/3 for the ternary and 1/2 for the binary key. The
    rows of each value leave their noise in all of them.
    """
    of_input, of_big = from_input * params.input_ring.ring_degree, from_big * params.big_dimension
    rows = params.bodies * (of_input + of_big) // params.polynomial_size * params.pbs.levels
    return _ring_rows(params, rows) + _ring_left_out(params, of_input * 2 / 3 + of_big / 2)


def split_variance(params: ParameterSet) -> float:
    """A value under another key than the first, with the mask that it shares -> the first key: kN L B^2/12 sigma^2 and kN/2 B^-2L / 12."""
    return _ring_rows(params, params.glwe_dimension * params.pbs.levels) + _ring_left_out(
        params, params.big_dimension / 2
    )


def lookup_input_variances(params: ParameterSet) -> tuple[float, float, float]:
    """What a look-up adds to its input: to any, and besides to what is under the input key, and to what is under the big key.

    Where look-ups share masks, the key switch is among the first, and merging is the rest.
    """
    switched = modulus_switch_variance(params)
    if params.bodies == 1:
        return switched, input_key_switch_variance(params), key_switch_variance(params)
    of_input = merge_variance(params, from_input=True, from_big=False)
    of_big = merge_variance(params, from_input=False, from_big=True)
    return switched + key_switch_variance(params), of_input, of_big


def pbs_variance(params: ParameterSet) -> float:
    """Output of a bootstrap: in each of its steps ggsws_per_step external products, each times (X^a - 1), hence the factor 2.

    External product: (k+w) L N B^2/12 sigma^2 for the key's noise (and its rounding on the wire); (1 + kN/2) B^-2L / 12, where the key
    holds a one, for what the digits leave out: in one of the step's products at most, and in none if all its bits are zero; and the
    transforms' rounding, amplified by the key like any error of the masks. All bits of a step are zero with probability 2^-g where g
    bits are uniform, and 1 / (l + 1) where they are a block of l.

    w is how many values share a mask. An error of the mask is in all of them, but later steps turn it by another amount under each key, so
    that their errors are as good as uncorrelated. All but the first are split off, with split_variance; it is counted for every value.
    """
    products = params.ggsws_per_step * _ring_rows(params, params.ggsw_rows)
    holds_a_one = 1 - (1 - params.block_length * params.small_key_mean) ** params.grouping_factor
    left_out = holds_a_one * _ring_left_out(params, 1 + params.big_dimension / 2)
    split = split_variance(params) if params.bodies > 1 else 0.0
    return 2 * params.steps * (products + left_out) + split


def _ring_key_switch(params: ParameterSet, key_square: float) -> float:
    ring, gadget = params.answer_ring, params.answer
    base = math.exp2(gadget.base_log)
    rows = gadget.levels * ring.ring_degree * (base**2 + 2) / 12 * (SEAL_STD_DEV / ring.modulus) ** 2
    return rows + key_square * base ** (-2 * gadget.levels) / 12


def packing_key_switch_variance(params: ParameterSet, *, products: bool = False) -> float:
    """The key switches of packing: N^2 times the first, which ``products`` do not have, and N^2 / 3 times those of the trace."""
    degree = params.answer_ring.ring_degree
    first = 0.0 if products else _ring_key_switch(params, params.big_dimension / 2)
    return degree**2 * (first + _ring_key_switch(params, degree * 2 / 3) / 3)


def packing_variance(params: ParameterSet, *, products: bool = False) -> float:
    """A logit's way into the answer: packing_key_switch_variance, the public encryption of zero, flooding, and rounding to answer_bits."""
    ring = params.answer_ring
    ternary = ring.ring_degree * 2 / 3
    zero = (1 + 2 * ternary) * (SEAL_STD_DEV / ring.modulus) ** 2
    rounding = (1 + ternary) * math.exp2(-2 * params.answer_bits) / 12
    return (
        packing_key_switch_variance(params, products=products)
        + zero
        + math.exp2(2 * params.flooding_log2_std_dev)
        + rounding
    )


def may_stand_in(params: ParameterSet, own: ParameterSet) -> bool:
    """Whether any network made for the set `own` may be evaluated under `params` as it is.

    Upload, answer and look-up ring are the same, and no noise is larger: that of the look-up of a value under the input key, the big key or
    both, and that of a bootstrap's output. So every layer reads at most the noise that it was made for.
    """

    def shape(chosen: ParameterSet) -> tuple[object, ...]:
        return (
            chosen.input_ring,
            chosen.input_body_bits,
            chosen.glwe_dimension,
            chosen.polynomial_size,
            chosen.answer_ring,
            chosen.answer,
            chosen.answer_bits,
            chosen.flooding_log2_std_dev,
        )

    def variances(chosen: ParameterSet) -> tuple[float, ...]:
        switched, of_input, of_big = lookup_input_variances(chosen)
        return switched + of_input, switched + of_big, switched + of_input + of_big, pbs_variance(chosen)

    return shape(params) == shape(own) and all(
        mine <= theirs for mine, theirs in zip(variances(params), variances(own), strict=True)
    )


def gaussian_tail(deviations: float) -> float:
    """Probability that a Gaussian error is more than so many standard deviations off, on either side; not below 2^-1000."""
    return max(math.erfc(deviations / math.sqrt(2)), math.exp2(-1000))


def lookup_error(params: ParameterSet, message_bits: int = 4) -> float:
    """Probability that a look-up of a fresh look-up result is wrong, if it carried whole messages of so many bits.

    Messages lie 2^-(message_bits + 1) of the torus apart (one padding bit); the phase carries the noise of a bootstrap, a key switch and
    the modulus switch. By this figure networks that bear noise are compared with systems that fix an error rate for their look-ups.
    """
    switched, _, of_big = lookup_input_variances(params)
    variance = pbs_variance(params) + switched + of_big
    return gaussian_tail(math.exp2(-message_bits - 2) / math.sqrt(variance))


def flooding_distance(params: ParameterSet, last_layer_norm: float = 0.0, *, products: bool = False) -> float:
    """How far a logit's answer is from one whose error is flooding alone: mean statistical distance, 0 (nothing shows) to 1.

    The error e that depends on the model comes from packing, and from the last look-ups by way of the last layer. A Gaussian of deviation
    f and the same one shifted by e are erf(abs(e) / (2 sqrt(2) f)) apart; the mean of that over a Gaussian e of deviation d is
    2/pi arctan(d / 2f). An answer of k logits is at most k times as far.

    Args:
        params: the parameter set.
        last_layer_norm: Euclidean norm of a row of the last layer's integer weights.
        products: the network has no look-up, so that the last layer reads fresh ciphertexts.
    """
    read = fresh_product_variance(params) if products else pbs_variance(params)
    own = packing_key_switch_variance(params, products=products) + last_layer_norm**2 * read
    return 2 / math.pi * math.atan(math.sqrt(own) / 2 / math.exp2(params.flooding_log2_std_dev))
