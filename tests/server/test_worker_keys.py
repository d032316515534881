"""A worker evaluates under the keys that the job names, or not at all: whatever the store holds in their place."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciphershift.client import Keystore
from ciphershift.errors import UnknownKeyError
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.program import Program
from ciphershift.protocol import tensors
from ciphershift.server.engine.base import Task
from ciphershift.server.engine.worker import load_bundle, read_bundle

TOY = params.get("TOY_N128")


@pytest.fixture
def task(make_body: Callable[..., Any], bundle: tuple[str, bytes], tiny_program: Program, tmp_path: Path) -> Task:
    file = tmp_path / "bundle.keys"
    file.write_bytes(bundle[1])
    body = make_body()
    _, tensor, _ = tensors.parse_request(body.headers["Inference-Header-Content-Length"], body.content)
    return Task(
        job_id="0" * 32,
        model=tiny_program.name,
        model_digest=tiny_program.digest,
        key_id=bundle[0],
        key_file=file,
        images=tuple(tensors.split_elements(tensor)),
        deadline=time.time() + 600,
        checkpoint=tmp_path / "checkpoint",
    )


def test_the_named_bundle_is_loaded(task: Task) -> None:
    assert load_bundle(read_bundle(task), task, TOY).params == TOY


def test_another_valid_bundle_in_its_place_is_refused(task: Task, tmp_path: Path) -> None:
    other = Keystore(tmp_path / "other").open(TOY)
    task.key_file.write_bytes(other.evaluation_keys.read_bytes())
    with pytest.raises(UnknownKeyError, match=f"holds the evaluation keys {other.key_id}"):
        load_bundle(read_bundle(task), task, TOY)


@pytest.mark.parametrize("spoil", [lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b[:100], lambda _: b"x" * 500])
def test_a_damaged_bundle_is_unknown_so_that_it_is_uploaded_again(task: Task, spoil: Callable[[bytes], bytes]) -> None:
    task.key_file.write_bytes(spoil(task.key_file.read_bytes()))
    with pytest.raises(UnknownKeyError, match="damaged"):
        load_bundle(read_bundle(task), task, TOY)


def test_a_removed_bundle_is_unknown(task: Task) -> None:
    task.key_file.unlink()
    with pytest.raises(UnknownKeyError, match="removed"):
        read_bundle(task)
