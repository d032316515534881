"""Parameter sets: ids, and the refusal of what does not fit."""

from dataclasses import replace

import pytest

from ciphershift.errors import ParameterError, UnknownParamsError
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.crypto.params import Gadget

FAST = params.get(params.DEFAULT)


def test_id_is_a_digest_of_every_field() -> None:
    assert FAST.id == replace(FAST).id
    assert len({FAST.id, replace(FAST, lwe_dimension=738).id, replace(FAST, name="OTHER").id}) == 3
    assert params.get(FAST.id) is FAST


def test_ids_of_older_sets_are_what_they_were_before_younger_fields() -> None:
    assert params.FAST_N512.id == "14d81e492ba997aa421e904315107f357e65eca89dcac7109b4d9ca9b63bdcc4"
    assert replace(params.FAST_N512, grouping_factor=2).id != params.FAST_N512.id


def test_unknown_and_unfit_sets_are_named() -> None:
    with pytest.raises(UnknownParamsError, match="FAST_N512"):
        params.get("SLOW")
    with pytest.raises(ParameterError, match="answer ring"):
        replace(FAST, glwe_dimension=8)
    with pytest.raises(ParameterError, match="polynomial_size = 500"):
        replace(FAST, polynomial_size=500)
    with pytest.raises(ParameterError, match="must tell its key"):
        replace(FAST, glwe_dimension=2)
    with pytest.raises(ParameterError, match="grouping_factor = 2"):
        replace(FAST, lwe_dimension=737)
    with pytest.raises(ParameterError, match="grouping_factor = 3"):
        replace(FAST, grouping_factor=3)
    with pytest.raises(ParameterError, match=r"base is 2\^7"):
        replace(FAST, key_switch=Gadget(base_log=7, levels=2))
