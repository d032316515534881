"""The public part of a network: its file, its range, and the Programs that begin with it."""

import builtins
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from ciphershift import errors
from ciphershift.he_layers import onnx_file, simulate
from ciphershift.he_layers.program import Program
from ciphershift.he_layers.stem import MAX_BYTES, Stem
from tests.support import stems
from tests.support.stems import BAD, CONV, RELU, SHAPE, model, stem


@pytest.fixture
def program(tiny_program: Program) -> Program:
    return replace(tiny_program, stem=stem())


IMAGES = np.random.default_rng(3).integers(0, 256, (3, *stems.RAW), dtype=np.uint8)


def test_a_stem_computes_its_file_in_its_range() -> None:
    assert np.allclose(stem().unit(IMAGES / 255), stems.by_hand(IMAGES), atol=1e-6)


def test_a_program_takes_what_the_stem_gives(program: Program, tiny_program: Program) -> None:
    levels = np.rint(stems.by_hand(IMAGES) * tiny_program.input.levels)
    assert np.array_equal(program.integers(IMAGES), levels)
    pixels = np.rint(levels / tiny_program.input.levels * 255).astype(np.uint8)
    assert np.array_equal(simulate.plain(program, IMAGES), simulate.plain(tiny_program, pixels))
    assert program.behind_stem.digest == tiny_program.digest != program.digest
    with pytest.raises(errors.BadShapeError):
        program.integers(pixels)


def test_a_program_is_stored_with_its_stem(program: Program, tmp_path: Path) -> None:
    program.save(tmp_path)
    loaded = Program.load(tmp_path)
    assert loaded.digest == program.digest
    assert loaded.stem is not None
    assert loaded.stem.onnx == stem().onnx
    (tmp_path / "stem.onnx").write_bytes(stem().onnx + b"\0")
    with pytest.raises(errors.DigestMismatchError):
        Program.load(tmp_path)
    (tmp_path / "stem.onnx").unlink()
    with pytest.raises(errors.ProgramError, match=r"stem\.onnx"):
        Program.load(tmp_path)


def test_the_digest_of_a_program_covers_its_stem(program: Program) -> None:
    others = [replace(program, stem=stem(**change)) for change in ({"high": (3.0,)}, {"most_outside": 0.4})]
    assert len({program.digest, *(other.digest for other in others)}) == 3


def test_values_outside_are_clipped_or_refused() -> None:
    narrow = stem(high=(0.5,))
    expected = stems.by_hand(IMAGES) * 4
    share = (expected > 1).reshape(3, -1).mean(axis=1)
    assert 0 < share.max() < 1
    assert np.allclose(replace(narrow, most_outside=1.0).unit(IMAGES / 255), expected.clip(0, 1), atol=1e-5)
    with pytest.raises(errors.OutOfLevelsError, match=f"sample {share.argmax()} is unlike"):
        replace(narrow, most_outside=float(share.max()) - 0.01).unit(IMAGES / 255)


def test_each_channel_may_have_a_range() -> None:
    file = model(
        CONV, helper.make_node("Concat", ["sums", "sums"], ["out"], axis=1), output=(1, 2, 8, 8)
    ).SerializeToString()
    found = stem(file, shape=(2, 8, 8), low=(-1.0, -2.0), high=(2.0, 2.0)).unit(IMAGES / 255)
    assert np.allclose(found[:, 0] * 3 - 1, found[:, 1] * 4 - 2, atol=1e-6)


def test_a_result_that_is_no_number_is_refused() -> None:
    file = model(CONV, helper.make_node("Log", ["sums"], ["out"])).SerializeToString()
    with pytest.raises(errors.OutOfLevelsError, match="not a number"):
        stem(file).run(IMAGES / 255)


@pytest.mark.parametrize(
    "change",
    [
        {"low": (0.0, 0.0)},
        {"low": (0.0, 0.0), "high": (1.0, 1.0)},
        {"low": (2.0,)},
        {"high": (float("inf"),)},
        {"low": (float("nan"),)},
        {"most_outside": 1.5},
        {"shape": ()},
        {"input_shape": (1, 16, 0)},
    ],
)
def test_a_range_or_a_shape_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(errors.BadStemError):
        stem(**change)


def test_a_large_file_is_refused() -> None:
    with pytest.raises(errors.TooLargeError):
        stem(bytes(MAX_BYTES + 1))


@pytest.mark.parametrize("problem", BAD)
def test_a_file_that_is_more_than_arithmetic_is_refused(problem: str) -> None:
    with pytest.raises(errors.BadStemError, match=re.escape(problem)):
        stem(BAD[problem]().SerializeToString()).check()


def test_bytes_that_are_no_onnx_are_refused() -> None:
    with pytest.raises(errors.BadStemError, match="cannot be read as ONNX"):
        stem(b"\xff\xff\xff").check()


def test_a_file_that_another_reader_would_take_for_something_else_is_refused() -> None:
    with pytest.raises(errors.BadStemError, match="onnxruntime's own format"):
        stem(stems.polyglot()).check()


def test_onnxruntime_gets_the_checked_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the server's bytes; no fields that were not read, no metadata, no claims, and the format is not guessed."""
    given: list[Any] = []
    real = onnxruntime.InferenceSession

    def recorded(*arguments: Any, **more: Any) -> Any:
        given.append(arguments)
        return real(*arguments, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", recorded)
    made = model(CONV, RELU)
    made.producer_name = "someone"
    made.metadata_props.add(key="ort_config", value="{}")
    made.graph.input.append(helper.make_tensor_value_info("kernel", 1, (9, 9)))
    made.graph.value_info.append(helper.make_tensor_value_info("sums", 1, (9, 9)))
    assert stem(made.SerializeToString() + b"\x52\x01?").run(IMAGES / 255).shape == (3, *SHAPE)
    ((content, options),) = given
    assert onnx.load_model_from_string(content) == model(CONV, RELU)
    assert len(content) == model(CONV, RELU).ByteSize()
    assert options.get_session_config_entry("session.load_model_format") == "ONNX"


def test_a_file_that_fails_for_a_sample_is_a_typed_error() -> None:
    found = stem(stems.out_of_range())
    assert found.run(np.zeros((1, *stems.RAW))).shape == (1, *SHAPE)
    with pytest.raises(errors.BadStemError, match=r"cannot be computed for sample 0 .*out of"):
        found.run(np.ones((1, *stems.RAW)))


def test_a_result_of_another_shape_is_refused() -> None:
    class Other:
        def get_inputs(self) -> list[Any]:
            return [SimpleNamespace(name="image")]

        def run(self, names: None, feeds: dict[str, Any]) -> list[Any]:
            return [np.zeros((1, 1, 1, 1), dtype=np.float32)]

    found = stem()
    vars(found)["_session"] = Other()
    with pytest.raises(errors.BadStemError, match="in place of"):
        found.run(IMAGES / 255)


@pytest.mark.parametrize("operator", ["Div", "Mod"])
def test_integers_may_be_divided_by_constants(operator: str) -> None:
    """Which no processor traps at."""
    steps = [stems.INTEGERS, stems.ints("two", 2), helper.make_node(operator, ["integers", "two"], ["half"])]
    assert stem(model(*steps, CONV, RELU).SerializeToString()).run(IMAGES / 255).shape == (3, *SHAPE)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(errors.ConfigurationError, match=r"pip install 'ciphershift\[stem\]'"):
        onnx_file.session(stem().onnx, stems.RAW, SHAPE)


def test_a_stem_must_fit_its_program(tiny_program: Program) -> None:
    with pytest.raises(errors.BadShapeError):
        replace(tiny_program, stem=Stem(**{**vars(stem()), "shape": (1, 4, 16)}))
