"""Parameter sets: ids, and the refusal of what does not fit."""

from dataclasses import replace

import pytest

from he_layers.crypto import params
from he_layers.crypto.errors import ParameterError, UnknownParamsError
from he_layers.crypto.params import Gadget

FAST = params.get(params.DEFAULT)


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
    with pytest.raises(ParameterError, match=r"base is 2\^7"):
        replace(FAST, key_switch=Gadget(base_log=7, levels=2))
