"""Parameter sets: ids, the security of every published row, and the refusal one step below the limit."""

from dataclasses import replace

import pytest

from he_layers.crypto import params, security
from he_layers.crypto.errors import InsecureParamsError, ParameterError, UnknownParamsError

FAST = params.get(params.DEFAULT)


def test_every_set_for_production_has_128_bits_in_every_published_row() -> None:
    for parameter_set in params.SETS.values():
        if not parameter_set.is_toy:
            security.require_secure(parameter_set)
            assert all(row.bits >= 128 for row in security.published_rows(parameter_set))


def test_toy_sets_are_refused() -> None:
    with pytest.raises(InsecureParamsError, match="key switch key"):
        security.require_secure(params.get("TOY_N128"))


@pytest.mark.parametrize(
    ("change", "row"),
    [
        ({"lwe_dimension": 713}, "key switch key, CKKS to small"),
        ({"lwe_log2_std_dev": -16.26}, "key switch key, CKKS to small"),
        ({"glwe_log2_std_dev": -49.9}, "bootstrapping key"),
        ({"answer_ring": params.CkksRing(ring_degree=2048, modulus=18014398509404161)}, "answer key"),
        ({"input_ring": params.CkksRing(ring_degree=1024, modulus=134215681)}, "CKKS ciphertext"),
    ],
)
def test_one_step_below_the_limit_is_refused_with_the_row_named(change: dict[str, object], row: str) -> None:
    with pytest.raises(InsecureParamsError, match=row):
        security.require_secure(replace(FAST, **change))


@pytest.mark.parametrize(
    ("secret", "dimension", "log2_std_dev", "estimated"),
    [
        ("binary", 630, -13.55, 128.09),
        ("binary", 750, -16.01, 132.0),
        ("binary", 850, -18.50, 132.3),
        ("binary", 1024, -22.83, 132.5),
        ("binary", 2048, -50.1, 128.63),
        ("ternary", 1024, -24.93, 128.10),
        ("ternary", 2048, -51.5, 128.34),
    ],
)
def test_closed_form_is_close_to_the_estimator_and_rather_below(
    secret: str, dimension: int, log2_std_dev: float, estimated: float
) -> None:
    """Points of the estimator runs in docs/security.md."""
    row = security.PublishedRow(what="", secret=secret, dimension=dimension, modulus_log2=64, log2_std_dev=log2_std_dev)
    assert -1.5 < row.bits - estimated < 0.75


def test_id_is_a_digest_of_every_field() -> None:
    assert FAST.id == replace(FAST).id
    assert len({FAST.id, replace(FAST, lwe_dimension=737).id, replace(FAST, name="OTHER").id}) == 3
    assert params.get(FAST.id) is FAST


def test_unknown_and_unfit_sets_are_named() -> None:
    with pytest.raises(UnknownParamsError, match="FAST_N512"):
        params.get("SLOW")
    with pytest.raises(ParameterError, match="answer ring"):
        replace(FAST, glwe_dimension=8)
    with pytest.raises(ParameterError, match="polynomial_size = 500"):
        replace(FAST, polynomial_size=500)
    with pytest.raises(ParameterError, match="must tell its key"):
        replace(FAST, glwe_dimension=2)
