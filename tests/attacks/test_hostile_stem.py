"""A malicious server that gives a public part: whatever it sends in its place is an error, and nothing is sent after it."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ciphershift import errors
from ciphershift.client import Keystore
from ciphershift.client._requests import Request, Step
from ciphershift.client._session import Session
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.program import Program
from ciphershift.protocol.schemas import ModelInputs
from ciphershift.server.api.profile import profile_of
from ciphershift.server.repository import Model
from tests.attacks.test_hostile_server import answer
from tests.support import stems
from tests.support.stems import CONV, RELU, model

IMAGE = np.zeros((1, *stems.RAW), dtype=np.uint8)
GOOD = stems.stem()


def profile(program: Program, **damage: Any) -> bytes:
    """The profile of a program that begins with the stem, with members of the stem's part replaced."""
    served = Model(program=program, params=params.get(program.params), card={}, inputs=ModelInputs(), log2_failure=None)
    told = profile_of(served, max_batch=4)
    assert told.stem is not None
    return told.model_copy(update={"stem": told.stem.model_copy(update=damage)}).model_dump_json().encode()


def attempt(keystore: Keystore, profile: bytes, content: bytes) -> Step:
    """The step that follows the answer to the request for the public part."""
    steps = Session("tiny", keystore, allow_toy_parameters=True).predict(IMAGE, None)
    next(steps)
    asked = steps.send(answer(profile))
    assert isinstance(asked, Request)
    assert (asked.method, asked.path) == ("GET", "/v2/models/tiny/stem")
    return steps.send(answer(content))


@pytest.fixture
def program(tiny_program: Program) -> Program:
    return replace(tiny_program, stem=GOOD)


@pytest.fixture
def empty(tmp_path: Any) -> Keystore:
    return Keystore(tmp_path)


def test_the_right_file_is_accepted(empty: Keystore, program: Program) -> None:
    step = attempt(empty, profile(program), GOOD.onnx)
    assert isinstance(step, Request)
    assert step.path.startswith("/v2/keys/")


def test_another_file_is_refused_and_not_kept(empty: Keystore, program: Program) -> None:
    for content in (GOOD.onnx[:-1], GOOD.onnx + b"\0", b"", model(CONV, RELU, opset=17).SerializeToString()):
        with pytest.raises(errors.DigestMismatchError):
            attempt(empty, profile(program), content)
    assert not (empty.folder / "stems").exists()


def test_a_file_that_is_more_than_arithmetic_is_refused_and_not_kept(empty: Keystore, program: Program) -> None:
    bad = stems.stem(model(CONV, RELU, opset=7).SerializeToString())
    with pytest.raises(errors.BadStemError):
        attempt(empty, profile(replace(program, stem=bad)), bad.onnx)
    assert not (empty.folder / "stems").exists()


def test_a_file_of_another_shape_than_stated_is_refused(empty: Keystore, program: Program) -> None:
    steps = Session("tiny", empty, allow_toy_parameters=True).predict(np.zeros((1, 2, 2), dtype=np.uint8), None)
    next(steps)
    steps.send(answer(profile(program, input_shape=(1, 2, 2))))
    with pytest.raises(errors.BadStemError, match="1x1x2x2 is wanted"):
        steps.send(answer(GOOD.onnx))


@pytest.mark.parametrize(
    "damage",
    [
        {"bytes": (64 << 20) + 1},
        {"bytes": 0},
        {"sha256": "../../x"},
        {"input_shape": ()},
        {"input_shape": (1, 0, 1)},
        {"low": ()},
        {"low": (math.nan,)},
        {"high": (math.inf,)},
        {"most_outside": 2.0},
    ],
)
def test_a_damaged_profile_is_refused(empty: Keystore, program: Program, damage: dict[str, Any]) -> None:
    steps = Session("tiny", empty, allow_toy_parameters=True).profile()
    next(steps)
    with pytest.raises(errors.MalformedError):
        steps.send(answer(profile(program, **damage)))


def test_a_range_that_cannot_be_is_refused(empty: Keystore, program: Program) -> None:
    for damage in ({"low": (3.0,)}, {"low": (0.0, 0.0), "high": (1.0, 1.0)}):
        with pytest.raises(errors.BadStemError):
            attempt(empty, profile(program, **damage), GOOD.onnx)


def test_a_longer_file_than_stated_is_not_read(empty: Keystore, program: Program) -> None:
    steps = Session("tiny", empty, allow_toy_parameters=True).predict(IMAGE, None)
    next(steps)
    asked = steps.send(answer(profile(program)))
    assert isinstance(asked, Request)
    assert asked.answer_limit == len(GOOD.onnx)
