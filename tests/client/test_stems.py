"""The public parts that a client keeps: the ranges of the present profile, folders that others cannot write to, and no old files."""

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciphershift.client import Keystore
from ciphershift.client._session import Session
from ciphershift.client._stems import KEPT_SECONDS, Stems, opened
from ciphershift.client._wire import ModelProfile, StemProfile, read
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.program import Program
from ciphershift.protocol.schemas import ModelInputs
from ciphershift.server.api.profile import profile_of
from ciphershift.server.repository import Model
from tests.attacks.test_hostile_server import answer
from tests.support import stems

IMAGES = np.random.default_rng(3).integers(0, 256, (2, *stems.RAW), dtype=np.uint8)


def told(program: Program, **changes: Any) -> tuple[ModelProfile, StemProfile]:
    """The profile of a program that begins with the stem, with another range."""
    served = Model(
        program=replace(program, stem=stems.stem(**changes)),
        params=params.get(program.params),
        card={},
        inputs=ModelInputs(),
        log2_failure=None,
    )
    profile = read(ModelProfile, profile_of(served, max_batch=4).model_dump_json().encode())
    assert profile.stem is not None
    return profile, profile.stem


@pytest.fixture
def open_to_others() -> Iterator[None]:
    before = os.umask(0o002)
    yield
    os.umask(before)


def test_a_new_range_of_the_same_file_is_used(tiny_program: Program, tmp_path: Path) -> None:
    """The owner has converted the model again, while the client goes on."""
    session = Session("tiny", Keystore(tmp_path), allow_toy_parameters=True)
    for high in (2.0, 4.0, 2.0):
        profile, stem = told(tiny_program, high=(high,))
        steps = session._opened_stem(profile, stem)
        try:
            next(steps)
            steps.send(answer(stems.stem().onnx))
        except StopIteration as done:
            found = done.value
        assert np.allclose(found.unit(IMAGES / 255), stems.by_hand(IMAGES) * 2 / high, atol=1e-6)


def test_the_folders_are_closed_to_others(tiny_program: Program, tmp_path: Path, open_to_others: None) -> None:
    """Else the keystore would refuse the keys that it makes there next."""
    keystore = Keystore(tmp_path / "new" / "client")
    Stems(keystore.folder / "stems").keep(told(tiny_program)[1], stems.stem().onnx)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (keystore.folder, keystore.folder / "stems")] == [0o700] * 2


def test_files_that_are_not_used_any_more_are_deleted(tiny_program: Program, tmp_path: Path) -> None:
    kept = Stems(tmp_path)
    profile, stem = told(tiny_program)
    kept.keep(stem, stems.stem().onnx)
    (path,) = tmp_path.iterdir()
    unused = tmp_path / "unused.onnx"
    unused.touch()
    old = time.time() - KEPT_SECONDS - 60
    for each in (path, unused):
        os.utime(each, (old, old))
    assert kept.find(profile, stem) is not None  # which is a use
    kept.keep(stem.model_copy(update={"sha256": "0" * 64}), b"another")
    assert {each.name for each in tmp_path.iterdir()} == {path.name, f"{'0' * 64}.onnx"}
    assert opened(path.read_bytes(), profile, stem).sha256 == stem.sha256
