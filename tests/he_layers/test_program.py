"""A Program checks itself and survives its files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError, ProgramError, UnsupportedLayerError
from ciphershift.he_layers import simulate
from ciphershift.he_layers.layers import Conv2d, Dense, Flatten, Linear, MaxPool2d, ReLU
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program
from tests.support import other_inputs


def test_a_program_survives_its_files(tiny_program: Program, tiny_images: NDArray[np.uint8], tmp_path: Path) -> None:
    tiny_program.save(tmp_path)
    loaded = Program.load(tmp_path)
    assert loaded.digest == tiny_program.digest
    assert np.array_equal(simulate.plain(loaded, tiny_images), simulate.plain(tiny_program, tiny_images))


def test_the_digest_tells_a_single_weight(tiny_program: Program) -> None:
    conv = tiny_program.layers[0]
    assert isinstance(conv, Conv2d)
    changed = conv.weight.copy()
    changed[0, 0, 0, 0] = 4
    other = replace(tiny_program, layers=(replace(conv, weight=changed), *tiny_program.layers[1:]))
    assert other.digest != tiny_program.digest


def test_look_ups_are_counted(tiny_program: Program) -> None:
    assert [stage.lookups for stage in tiny_program.stages] == [0, 4 * 9 * 3, 4 * 9, 0, 0]
    assert tiny_program.lookups == 144


def test_scales_follow_the_layers(tiny_program: Program) -> None:
    assert [stage.delta for stage in tiny_program.stages] == [1 / 256] * 3 + [1 / 512] * 2
    assert tiny_program.turns_to_logits == 512


def test_chains_that_do_not_fit_are_refused(tiny_program: Program) -> None:
    with pytest.raises(ProgramError, match="unique"):
        replace(tiny_program, layers=(tiny_program.layers[0], *tiny_program.layers))
    with pytest.raises(ProgramError, match="last layer"):
        replace(tiny_program, layers=tiny_program.layers[:-1])
    with pytest.raises(BadShapeError, match="2 classes"):
        replace(tiny_program, output=OutputSpec(classes=("a", "b"), scale=1.0))
    with pytest.raises(BadShapeError, match="before flatten"):
        pool = MaxPool2d(name="late", kernel=(2, 2), stride=(2, 2))
        replace(tiny_program, layers=(Flatten(name="early"), pool, *tiny_program.layers[-1:]))


def test_a_program_without_look_ups_is_one_dense_layer_that_stays_on_the_torus() -> None:
    program = other_inputs.scores()
    dense = program.layers[0]
    assert isinstance(dense, Dense) and program.lookups == 0
    with pytest.raises(ProgramError, match="is one dense layer"):
        replace(program, layers=(Linear(name="classes", weight=np.ones((2, 4), dtype=np.int8)),))
    with pytest.raises(ProgramError, match="is one dense layer"):
        replace(
            program,
            layers=(replace(dense, weight=np.ones((4, 4), dtype=np.int8), bias=None), replace(dense, name="two")),
        )
    with pytest.raises(ProgramError, match=r"reach 0\.\d+ turns for some inputs.*lower the input's delta"):
        replace(program, input=replace(program.input, delta=1 / 4096))
    with pytest.raises(ProgramError, match="has none: use linear"):
        replace(dense, modulus=64)
    with pytest.raises(ProgramError, match="int16 with 2 axes"):
        replace(dense, weight=np.ones((2, 4), dtype=np.int32))  # type: ignore[arg-type]


def test_answers_are_refined_where_there_is_no_look_up(tiny_program: Program, tmp_path: Path) -> None:
    program = other_inputs.scores()
    assert program.answer_values == 4
    program.save(tmp_path / "new")
    assert Program.load(tmp_path / "new").output == program.output
    once = replace(program, output=replace(program.output, refinement=None))
    assert once.answer_values == 2 and once.digest != program.digest
    once.save(tmp_path / "old")  # programs of before have no such member, and keep their digests
    assert "refinement" not in json.loads((tmp_path / "old" / "program.json").read_text())["output"]
    turns = np.array([[0.1, -0.2, 6.4 - 6, -12.8 + 13]])
    assert program.logits(turns) == pytest.approx(once.logits(turns[:, :2]))
    with pytest.raises(BadShapeError, match="2 values were decrypted, an answer has 4"):
        program.logits(turns[:, :2])
    with pytest.raises(ProgramError, match="answers each value once"):
        replace(tiny_program, output=replace(tiny_program.output, refinement=64))
    for wrong in (1, 257, 64.5):
        with pytest.raises(ProgramError, match="whole number from 2 to 256"):
            replace(program.output, refinement=wrong)  # type: ignore[arg-type]  # as a file may say


def test_a_ramp_longer_than_the_window_is_refused(tiny_program: Program) -> None:
    relu = tiny_program.layers[2]
    assert isinstance(relu, ReLU)
    slow = replace(relu, multiplier=relu.multiplier / 10)
    with pytest.raises(ProgramError, match="ramp"):
        replace(tiny_program, layers=(*tiny_program.layers[:2], slow, *tiny_program.layers[3:]))


def test_an_input_that_wraps_is_refused() -> None:
    with pytest.raises(ProgramError, match=r"0\.5"):
        InputSpec(shape=(1, 8, 8), levels=255, delta=1 / 256)


def test_sequences_are_said_by_programs_that_take_them(tiny_program: Program, tmp_path: Path) -> None:
    program = other_inputs.sequences()
    program.save(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "program.json").read_text())["input"]["sequences"] is True
    assert Program.load(tmp_path / "new").input == program.input
    assert (
        Program.load(tmp_path / "new").digest != replace(program, input=replace(program.input, sequences=False)).digest
    )
    tiny_program.save(tmp_path / "old")  # programs of before have no such member, and keep their digests
    assert "sequences" not in json.loads((tmp_path / "old" / "program.json").read_text())["input"]


def test_inputs_that_cannot_be_padded_are_refused() -> None:
    good = other_inputs.sequences().input
    assert good.encoding is not None
    with pytest.raises(ProgramError, match="no sequences"):
        InputSpec(shape=(1, 8), levels=15, delta=1 / 256, sequences=True)
    with pytest.raises(ProgramError, match="no sequences"):
        InputSpec(shape=(1, 8, 8), levels=15, delta=1 / 256, sequences=True)
    with pytest.raises(ProgramError, match="true or false"):
        replace(good, sequences="yes")  # type: ignore[arg-type]  # as a file may say
    with pytest.raises(ProgramError, match=r"padding: change is 0 .* takes 5 to"):
        replace(good, encoding=replace(good.encoding, origin=(5.0, 0.0, 0.0), lowest=(0, 0, 0)))
    with pytest.raises(ProgramError, match="padding: presence is 1"):
        replace(good, encoding=replace(good.encoding, step=(1.0, 1.0, 1 / 40)))


def test_images_of_another_kind_are_refused(tiny_program: Program) -> None:
    kinds: list[NDArray[Any]] = [
        np.zeros((1, 1, 8, 9), dtype=np.uint8),
        np.zeros((1, 8, 8), dtype=np.uint8),
        np.zeros((1, 1, 8, 8)),
    ]
    for images in kinds:
        with pytest.raises(BadShapeError, match="uint8"):
            simulate.plain(tiny_program, images)


def test_damaged_files_are_refused(tiny_program: Program, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="no program"):
        Program.load(tmp_path)
    tiny_program.save(tmp_path)
    description = json.loads((tmp_path / "program.json").read_text())

    def refused(change: dict[str, Any], error: type[ProgramError], message: str) -> None:
        (tmp_path / "program.json").write_text(json.dumps(description | change))
        with pytest.raises(error, match=message):
            Program.load(tmp_path)

    layers = description["layers"]
    refused({"format": 99}, ProgramError, "99")
    refused({"layers": [layers[0] | {"kind": "softmax"}, *layers[1:]]}, UnsupportedLayerError, "softmax")
    refused({"layers": [layers[0] | {"dilation": 2}, *layers[1:]]}, ProgramError, "dilation")
    refused({"layers": [{"kind": "conv", "name": "bare"}, *layers[1:]]}, ProgramError, "bare")
    refused({"input": {"shape": [1, 1, 8, 8], "levels": 15, "delta": 0.01}}, ProgramError, "input shape")
    for text, message in (
        ("{", "no program"),
        ("[" * 100_000, "no program"),
        ("7", "wrong type"),
        ("null", "wrong type"),
    ):
        (tmp_path / "program.json").write_text(text)
        with pytest.raises(ProgramError, match=message):
            Program.load(tmp_path)
    for delta in (1e308, -1, float("nan"), float("inf"), "1"):
        refused({"input": description["input"] | {"delta": delta}}, ProgramError, "turns|wrong type")
