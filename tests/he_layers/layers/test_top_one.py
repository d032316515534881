"""The arg-max as an answer: integer semantics, circuit, noise, and that nothing else of the logits is in it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError, OutOfLevelsError, ProgramError
from ciphershift.he_layers import evaluate, simulate
from ciphershift.he_layers.crypto import ckks, params
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.layers import Scale, TopOne
from ciphershift.he_layers.program import Program
from ciphershift.he_layers.simulate import CircuitNoise
from ciphershift.models.compiler import answers

SILENT = CircuitNoise.silent(1024)
TOY = params.get("TOY_N128")


@pytest.mark.parametrize("classes", [2, 3, 10, 64])
def test_the_greatest_value_gets_the_one_and_of_equals_the_first(classes: int) -> None:
    rng = np.random.default_rng(classes)
    values, delta = rng.integers(-8, 8, (500, classes)), 1 / 64
    layer = TopOne(name="top")
    one_hot = layer.plain(values)
    assert np.array_equal(one_hot, np.eye(classes, dtype=np.int64)[values.argmax(axis=1)])
    circuit = simulate.NoisyCircuit(SILENT, rng)
    scale = Scale(shape=(classes,), delta=delta, polynomial_size=1024)
    turns = layer.apply(circuit, circuit.encrypt(values * delta), scale).turns
    assert np.allclose(turns / layer.output_delta(delta), one_hot, atol=1e-9)
    assert layer.lookups((classes,)) == classes * (classes - 1) // 2 + classes


def test_noise_decides_between_close_values_only() -> None:
    """Under the noise of FAST_N512 a lead of 0.05 turns is always seen, and one of 0.001 about every other time."""
    layer = TopOne(name="top")
    noise = CircuitNoise.predicted(params.FAST_N512)
    scale = Scale(shape=(10,), delta=0.001, polynomial_size=512)
    for lead, least, most in ((0.05, 1.0, 1.0), (0.001, 0.4, 0.8)):
        values = np.full((2000, 10), -0.1)
        values[:, 6], values[:, 2] = 0.1 + lead, 0.1
        circuit = simulate.NoisyCircuit(noise, np.random.default_rng(1))
        turns = layer.apply(circuit, circuit.encrypt(values), scale).turns
        assert least <= np.mean(turns.argmax(axis=1) == 6) <= most
        assert ((turns > 0.125).sum(axis=1) == 1).all()


def test_a_vector_of_at_least_two_values_is_wanted() -> None:
    for shape in ((1,), (65,), (2, 3, 3)):
        with pytest.raises(BadShapeError, match="vector of 2 to 64 values"):
            TopOne(name="top").output_shape(shape)


def test_encrypted_top_one_answers_hold_one_winner_and_nothing_of_the_logits(
    tiny_program: Program, tiny_images: NDArray[np.uint8]
) -> None:
    only_class = answers.top_one(tiny_program)
    assert only_class.lookups == tiny_program.lookups + 6
    keys = ClientKeys.generate(TOY)
    server_keys = keys.evaluation_keys().expand(2)
    rows = []
    for integers in only_class.input.integers(tiny_images):
        image = ckks.encrypt(keys, "00" * 32, integers.reshape(-1) * only_class.input.delta)
        *_, last = evaluate.run(only_class, server_keys, [[image]], threads=2)
        assert last.answer is not None
        rows.append(ckks.decrypt(keys, last.answer) * only_class.turns_to_logits)
    turns = np.stack(rows)
    assert np.allclose(turns, np.rint(turns), atol=0.02)
    assert (np.rint(turns).sum(axis=1) == 1).all()
    assert only_class.logit_step == 1.0


def test_quantized_answers_keep_the_order_of_the_logits(tiny_program: Program) -> None:
    coarse = answers.quantized(tiny_program, levels=7)
    images = np.random.default_rng(3).integers(0, 256, (200, 1, 8, 8), dtype=np.uint8)
    plain, quantized = simulate.plain(tiny_program, images), simulate.plain(coarse, images)
    assert quantized.min() >= 0
    assert quantized.max() <= 7
    assert len(np.unique(quantized)) >= 4
    for row, levels in zip(plain, quantized, strict=True):
        assert (np.diff(levels[np.argsort(row)]) >= 0).all()
    assert coarse.logit_step == coarse.output.scale
    circuit = simulate.NoisyCircuit(CircuitNoise.predicted(TOY), np.random.default_rng(0))
    pixels = circuit.encrypt(coarse.input.integers(images[:50]).reshape(50, -1) * coarse.input.delta)
    *_, (_, answer) = coarse.walk(circuit, pixels, TOY.polynomial_size)
    levels = circuit.decrypt(answer, coarse.output) / coarse.logit_delta
    assert np.allclose(levels, np.rint(levels), atol=0.1)


def test_answers_that_cannot_be_changed_are_named(tiny_program: Program) -> None:
    with pytest.raises(ProgramError, match="ends in top_one"):
        answers.quantized(answers.top_one(tiny_program), 7)
    with pytest.raises(OutOfLevelsError, match="levels = 0"):
        answers.quantized(tiny_program, 0)
