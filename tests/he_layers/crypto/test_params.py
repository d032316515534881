"""Parameter sets: ids, and the refusal of what does not fit."""

from dataclasses import replace

import pytest

from ciphershift.errors import ParameterError, UnknownParamsError
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.crypto.params import Gadget, ParameterSet

FAST = params.get(params.DEFAULT)


def test_id_is_a_digest_of_every_field() -> None:
    assert FAST.id == replace(FAST).id
    assert len({FAST.id, replace(FAST, lwe_dimension=738).id, replace(FAST, name="OTHER").id}) == 3
    assert params.get(FAST.id) is FAST


def test_ids_of_older_sets_are_what_they_were_before_younger_fields() -> None:
    assert params.FAST_N512.id == "14d81e492ba997aa421e904315107f357e65eca89dcac7109b4d9ca9b63bdcc4"
    assert params.FAST_N512_PAIRS.id == "e218f0e0d83723c61d6a7c195be7ac6fd82fda69ada37ba4d83f399698e27a3d"
    assert params.EXACT_N2048.id == "78aa7c85de4f52835300f1c909a8df5e240352d952ed2e97013c9f489fc939a6"
    assert params.FAST_N512_BLOCK3.id == "cee87f874515fb615f2d452c5c07a20384c5edefb427fc5ccc7c62887f0c40e6"
    assert params.FAST_N512_BLOCK4.id == "ea296f105b1d1ca3a75ccc9672d577109664fd62c740e4c9a83445948aaace00"
    assert params.EXACT_N2048_BLOCK3.id == "350b5148908896d1987fe68087a3c5fa892a1f022365adcc3f706f3449fc057f"
    assert len({replace(params.TOY_N128_BLOCK3, block_length=length).id for length in (1, 2, 3)}) == 3
    assert params.TOY_N128_SHARED2.id != replace(params.TOY_N128_SHARED2, bodies=1).id


@pytest.mark.parametrize("parameter_set", params.SETS.values(), ids=lambda parameter_set: parameter_set.name)
def test_the_steps_take_every_bit_once(parameter_set: ParameterSet) -> None:
    assert parameter_set.steps * parameter_set.bits_per_step == parameter_set.lwe_dimension
    ggsws = (
        {1: 1, 2: 3}[parameter_set.grouping_factor] if parameter_set.block_length == 1 else parameter_set.block_length
    )
    assert parameter_set.bsk_entries == parameter_set.steps * ggsws


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
    with pytest.raises(ParameterError, match=r"block_length = 5 is not in 1\.\.4"):
        replace(FAST, grouping_factor=1, block_length=5)
    with pytest.raises(ParameterError, match="divisor of lwe_dimension = 736"):
        replace(params.FAST_N512, block_length=3)
    with pytest.raises(ParameterError, match="leave grouping_factor at 1"):
        replace(params.FAST_N512_PAIRS, block_length=4)
    with pytest.raises(ParameterError, match="bodies = 3"):
        replace(FAST, bodies=3)
    with pytest.raises(ParameterError, match="polynomial_size = 2048 exceeds the input ring's degree 1024"):
        replace(params.EXACT_N2048, bodies=2)
    with pytest.raises(ParameterError, match=r"base is 2\^7"):
        replace(FAST, key_switch=Gadget(base_log=7, levels=2))
