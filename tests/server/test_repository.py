"""The model repository: a bad model is refused with its reason, the others are served; load, unload, index."""

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from ciphershift import errors
from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import Program
from ciphershift.protocol.schemas import ModelInputs
from ciphershift.server.repository import Repository
from ciphershift.server.settings import ZOO, Settings
from ciphershift.server.store.database import Database
from ciphershift.server.store.tenants import Scope, TenantStore
from tests.support.command_line import run


def repository(models: Path, *, toy: bool = True) -> Repository:
    return Repository(Settings(models=models, allow_toy_parameters=toy))


@pytest.fixture
def folder(tmp_path: Path, tiny_program: Program) -> Path:
    """Two good models."""
    for name in ("one", "two"):
        replace(tiny_program, name=name).save(tmp_path / name)
    return tmp_path


def no_json(folder: Path) -> None:
    (folder / "program.json").write_text("{")


def no_weights(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()


def damaged_weights(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"\xff" * 100)


def bad_card(folder: Path) -> None:
    (folder / "card.json").write_text("[]")


def nested_card(folder: Path) -> None:
    (folder / "card.json").write_text("[" * 100_000)


def bad_quota(folder: Path) -> None:
    (folder / "card.json").write_text('{"recommended_quota": {"answers": -1, "agreement": 0.9}}')


def bad_inputs(folder: Path) -> None:
    (folder / "inputs.json").write_text('{"examples": [{"name": "one", "values": "AAAA"}]}')


def no_inputs(folder: Path) -> None:
    (folder / "inputs.json").write_text('{"images": "paintings"}')


def another_name(folder: Path) -> None:
    shutil.copytree(folder.parent / "two", folder, dirs_exist_ok=True)


def unknown_parameters(folder: Path) -> None:
    file = folder / "program.json"
    file.write_text(file.read_text().replace("TOY_N128", "NONE_N1"))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (no_json, "no program can be read"),
        (no_weights, "no program can be read"),
        (damaged_weights, "no program can be read"),
        (bad_card, "card.json"),
        (nested_card, "cannot be read"),
        (bad_quota, "recommended_quota is no quota"),
        (bad_inputs, "one has 3 values, the model takes 64"),
        (no_inputs, "inputs.json cannot be read"),
        (another_name, "rename one of them"),
        (unknown_parameters, "NONE_N1"),
    ],
)
def test_a_bad_model_is_refused_with_its_reason_and_the_others_are_served(
    folder: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(folder / "one")
    models = repository(folder)
    assert list(models) == ["two"]
    assert models.entries["one"].model is None
    assert reason in models.entries["one"].reason
    with pytest.raises(errors.UnknownModelError, match="served are: two"):
        models["one"]


def test_toy_parameters_are_refused_unless_told(folder: Path) -> None:
    models = repository(folder, toy=False)
    assert list(models) == []
    assert "TOY_N128" in models.entries["one"].reason
    assert list(repository(folder)) == ["one", "two"]


def test_a_bad_new_version_leaves_the_old_one_served(folder: Path) -> None:
    models = repository(folder)
    no_json(folder / "one")
    with pytest.raises(errors.ProgramError):
        models.load("one")
    assert models["one"].program.version == "1"
    assert "no program can be read" in models.entries["one"].reason


def test_a_folder_that_is_replaced_while_it_is_read_is_read_again(
    folder: Path, tiny_program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an operator replaces it: the old folder is renamed, the new one takes its name, the old one is deleted."""
    models = repository(folder)
    replace(tiny_program, name="one", version="2").save(folder / "new")
    load, replaced = Program.load, list[Path]()

    def slow(path: Path) -> Program:
        text = (path / "program.json").read_text()
        if not replaced:
            replaced.append(path)
            path.rename(folder / "old")
            (folder / "new").rename(path)
            shutil.rmtree(folder / "old")
            raise errors.ProgramError(f"no program can be read from {text}")
        return load(path)

    monkeypatch.setattr(Program, "load", slow)
    assert models.load("one").program.version == "2"
    with pytest.raises(errors.ProgramError):
        (folder / "one" / "weights.safetensors").unlink()
        models.load("one")


@pytest.mark.parametrize("name", ["none", "..", "../one", ""])
def test_only_folders_of_the_repository_can_be_loaded(folder: Path, name: str) -> None:
    with pytest.raises(errors.UnknownModelError):
        repository(folder / "..").load(name)


def test_load_unload_and_index_over_http(
    folder: Path, tiny_program: Program, bundle: tuple[str, bytes], make_body: Callable[..., Any], tmp_path_factory: Any
) -> None:
    no_json(folder / "one")
    settings = {"models": folder, "allow_toy_parameters": True, "storage": tmp_path_factory.mktemp("storage")}

    def infer(http: httpx.Client, model: str) -> httpx.Response:
        body = make_body()
        return http.post(f"/v2/models/{model}/infer", content=body.content, headers=body.headers)

    database = Database.open(Settings(storage=str(settings["storage"])).database_url)
    tenants = TenantStore(database)
    tenants.create("operator")
    key = {"Authorization": f"Bearer {tenants.make_key('operator', [Scope.ADMIN])}"}
    database.close()
    with (
        running_server(**settings, open=False) as server,
        httpx.Client(base_url=server.url, timeout=60, headers=key) as http,
    ):
        http.put(f"/v2/keys/{bundle[0]}", content=bundle[1])
        index = {entry["name"]: entry for entry in http.post("/v2/repository/index").json()}
        assert index["two"] == {"name": "two", "version": "1", "state": "READY", "reason": ""}
        assert index["one"]["state"] == "UNAVAILABLE"
        assert "program.json" in index["one"]["reason"] or "no program" in index["one"]["reason"]
        refused = http.post("/v2/repository/models/one/load")
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_program")
        assert infer(http, "two").status_code == 200

        replace(tiny_program, name="two", version="2").save(folder / "two")
        assert http.post("/v2/repository/models/two/load").status_code == 200
        assert http.get("/v2/models/two").json()["versions"] == ["2"]
        assert infer(http, "two").status_code == 200

        replace(tiny_program, name="one").save(folder / "one")
        assert http.post("/v2/repository/models/one/load").status_code == 200
        assert infer(http, "one").status_code == 200
        assert http.post("/v2/repository/models/one/unload").status_code == 200
        assert infer(http, "one").json()["code"] == "unknown_model"
        assert http.get("/v2/models/one/ready").status_code == 404
        assert http.post("/v2/repository/models/none/load").json()["code"] == "unknown_model"

        environment = {f"CIPHERSHIFT_{name.upper()}": str(value) for name, value in settings.items()}
        assert run("repository", "load", "one", environment=environment).returncode == 0
        deadline = time.monotonic() + 60
        while infer(http, "one").status_code != 200:
            assert time.monotonic() < deadline, "the server follows what the command says"
            time.sleep(0.2)
        assert run("repository", "unload", "two", environment=environment).returncode == 0
    records = json.loads(run("tenants", "audit", "--json", environment=environment).stdout)["rows"]
    by_tenant = [record for record in records if record["actor"].startswith("tenant:")]
    assert {record["actor"] for record in by_tenant} == {f"tenant:operator/{key['Authorization'].split('_')[1]}"}
    assert [(record["action"], record["target"]) for record in reversed(by_tenant)] == [
        ("model.load", "two"),
        ("model.load", "one"),
        ("model.unload", "one"),
    ]
    with running_server(**settings, wait_until_ready=False) as server:
        models = httpx.get(f"{server.url}/v2/models").json()["models"]
        assert [model["name"] for model in models] == ["one"]


def test_the_examples_of_the_shipped_networks_are_what_they_say() -> None:
    right, found = 0, set()
    for path in ZOO.glob("*/inputs.json"):
        description = json.loads((path.parent / "program.json").read_text())
        inputs = ModelInputs.model_validate_json(path.read_bytes())
        assert {example.label for example in inputs.examples} <= set(description["output"]["classes"])
        sample = description["stem"]["input_shape"] if "stem" in description else description["input"]["shape"]
        assert {len(example.values) for example in inputs.examples} == {math.prod(sample)}
        found.add(path.parent.name)
    without = {"cifar10-dshe", "cifar10-fast", "cifar10-she"}  # their images have no license
    assert {path.parent.name for path in ZOO.glob("*/program.json")} - found == without
    tiny = Program.load(ZOO / "mnist-tiny")
    for example in ModelInputs.model_validate_json((ZOO / "mnist-tiny" / "inputs.json").read_bytes()).examples:
        assert isinstance(example.values, bytes)
        pixels = np.frombuffer(example.values, dtype=np.uint8).reshape(1, *tiny.input.shape)
        right += tiny.output.classes[simulate.plain(tiny, pixels).argmax()] == example.label
    assert right >= 9
