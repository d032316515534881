"""The work that is priced is the work that is done, and prices add up."""

from dataclasses import replace

import numpy as np
import pytest

from ciphershift.he_layers import evaluate
from ciphershift.he_layers.analysis import cost
from ciphershift.he_layers.crypto import ckks, packing, params, pbs, timing
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.crypto.timing import PrimitiveTimes
from ciphershift.he_layers.program import Program
from tests.support import other_inputs

TOY = params.get("TOY_N128")
UNIT = PrimitiveTimes(
    threads=2, lanes=4, bootstrap=1.0, input_key_switch=0, big_key_switch=0, linear_word=0, packing_key_switch=0
)


def test_the_work_is_what_an_evaluation_does(tiny_program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch that reaches a look-up in an encrypted evaluation, in order, with its dimension."""
    seen: list[tuple[int, int]] = []
    real = pbs.pbs

    def spy(x, *args, **kwargs):
        seen.append((len(x), x.dimension))
        return real(x, *args, **kwargs)

    monkeypatch.setattr(pbs, "pbs", spy)
    keys = ClientKeys.generate(TOY)
    image = ckks.encrypt(keys, "00" * 32, np.zeros(64))
    list(evaluate.run(tiny_program, keys.evaluation_keys().expand(2), [[image]], threads=2))
    layers = cost.work(tiny_program)
    assert seen == [(x.count, x.dimension(TOY)) for layer in layers for x in layer.lookups]
    assert sum(count for count, _ in seen) == tiny_program.lookups
    products = [count for layer in layers for count, _ in layer.products]
    conv, dense = tiny_program.layers[0], tiny_program.layers[4]
    assert products == [36 * np.count_nonzero(conv.weight), np.count_nonzero(dense.weight)]  # type: ignore[attr-defined]
    assert [layer.packed for layer in layers] == [0, 0, 0, 0, 3]


def test_weighted_sums_without_look_ups_cost_packing_and_products() -> None:
    """Of two logits, answered twice, the key switches of three pairs and of nine steps of the trace, and four products."""
    program = other_inputs.scores()
    (layer,) = cost.work(program)
    assert (layer.packed, layer.multiplied, layer.products, layer.lookups) == (4, 4, (), ())
    assert cost.predict(program, TOY, replace(UNIT, packing_key_switch=1.0)) == pytest.approx(3 + 9 + 4 / 2)


def test_a_look_up_of_fewer_ciphertexts_than_lanes_costs_a_whole_round(tiny_program: Program) -> None:
    """72 pairs along rows, 36 down columns: 18 and 9 vectors of 4 on two threads, 9 and 4.5 rounds."""
    layers = cost.work(tiny_program)
    pool = next(layer for layer in layers if layer.layer == "pool")
    assert [x.count for x in pool.lookups] == [72, 36]
    assert cost.layer_seconds(pool, TOY, UNIT) == pytest.approx(9 + 4.5)


def test_key_switches_are_priced_by_the_keys_that_a_batch_is_under(tiny_program: Program) -> None:
    """The first round of the pool is under the input key; then the input's and the big key, like the ReLU behind it."""
    times = PrimitiveTimes(
        threads=1,
        lanes=1,
        bootstrap=0,
        input_key_switch=1.0,
        big_key_switch=100.0,
        linear_word=0,
        packing_key_switch=7.0,
    )
    by_name = {layer.layer: cost.layer_seconds(layer, TOY, times) for layer in cost.work(tiny_program)}
    assert by_name["pool"] == 36 * (1 + 1 + 101)
    assert by_name["relu"] == 36 * 101
    assert by_name["dense"] == packing.key_switches(3, TOY.answer_ring) * 7.0
    assert cost.predict(tiny_program, TOY, times) == sum(by_name.values())


def test_measured_times_are_kept_until_they_are_forgotten() -> None:
    first = timing.measure(TOY, 1)
    assert min(first.bootstrap, first.input_key_switch, first.big_key_switch, first.linear_word) > 0
    assert first.big_key_switch / first.input_key_switch == pytest.approx(TOY.big_dimension / 1024)
    assert timing.measure(TOY, 1) == first
    timing.forget()
    assert timing.measure(TOY, 1) != first


def test_look_ups_that_share_masks_have_one_key_switch_and_a_merge_for_each_of_their_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two of them for each lane. A merge takes as many seconds here as it has polynomials, a key switch one for each word in and out."""
    monkeypatch.setattr(timing, "_step_seconds", lambda *_: 0.0)
    monkeypatch.setattr(timing, "_key_switch_seconds", lambda *_: 1.0)
    monkeypatch.setattr(timing, "_merge_seconds", lambda sources, *_: float(sources))
    shared, threads = params.get("TOY_N128_SHARED2"), 3
    times = timing.measure(shared, threads)
    assert times.lanes == 2 * timing.measure(TOY, threads).lanes
    assert (times.input_key_switch, times.big_key_switch) == (1024 / 128, 512 / 128)
    assert times.bootstrap == 512 * (shared.lwe_dimension + 2) / 2 * times.lanes * threads
