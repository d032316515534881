"""The protocol as others know it: a stock Triton client, and every path of the API's own description."""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import numpy as np
import pytest
import schemathesis
import tritonclient.http as triton
from numpy.typing import NDArray
from schemathesis import checks
from tritonclient.utils import InferenceServerException

from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import Keystore
from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto import ckks, params
from ciphershift.he_layers.crypto.ciphertexts import Binding, PackedAnswer
from ciphershift.he_layers.program import Program
from ciphershift.server.app import create_app
from ciphershift.server.settings import Settings
from ciphershift.server.store.database import Database
from ciphershift.server.store.tenants import Scope, TenantStore

TOY = params.get("TOY_N128")


def test_a_stock_triton_client_infers_with_our_bytes(
    server: ServerProcess,
    keystore: Keystore,
    bundle: tuple[str, bytes],
    tiny_program: Program,
    tiny_images: NDArray[np.uint8],
) -> None:
    httpx.put(f"{server.url}/v2/keys/{bundle[0]}", content=bundle[1])
    pair = keystore.open(TOY)
    encrypted = [
        ckks.encrypt(pair.client_keys, pair.key_id, image.ravel() * tiny_program.input.delta)
        for image in tiny_program.input.integers(tiny_images)
    ]
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert not client.is_model_ready("none")
        assert "jobs" in client.get_server_metadata()["extensions"]
        metadata = client.get_model_metadata("tiny")
        assert metadata["inputs"][0]["datatype"] == "BYTES"
        assert {"name": "tiny", "version": "1", "state": "READY", "reason": ""} in client.get_model_repository_index()
        tensor = triton.InferInput("image", [len(encrypted)], "BYTES")
        tensor.set_data_from_numpy(np.array([image.to_bytes() for image in encrypted], dtype=np.object_))
        parameters = {"key_id": pair.key_id, "image_shape": "1x8x8"}
        answer = client.infer("tiny", [tensor], model_version="1", request_id="r1", parameters=parameters)
        assert client.get_model_metadata("tiny", model_version="1") == metadata
        for name, version, message in (
            ("tiny", "2", "model tiny is served in version 1, not 2"),
            ("none", "", "no model 'none' is served; served are: tiny"),
        ):
            with pytest.raises(InferenceServerException) as refused:
                client.infer(name, [tensor], model_version=version, parameters=parameters)
            assert (refused.value.status(), refused.value.message()) == ("404", message)
    assert answer.get_response()["id"] == "r1"
    logits = [
        ckks.decrypt(
            pair.client_keys,
            PackedAnswer.from_bytes(row, TOY, Binding.of([image], tiny_program.digest), 3),
        )
        for row, image in zip(answer.as_numpy("logits"), encrypted, strict=True)
    ]
    rng = np.random.default_rng(2)
    runs = np.stack([simulate.run(tiny_program, TOY, tiny_images, rng) for _ in range(50)])
    far = np.abs((np.stack(logits) * tiny_program.turns_to_logits - runs.mean(axis=0)) / runs.std(axis=0))
    assert far.max() < 5


def description() -> dict[str, Any]:
    """What /openapi.json says; the tests below are made from it before any server runs."""
    with tempfile.TemporaryDirectory() as folder:
        return create_app(Settings(models=Path(folder), storage=folder)).openapi()


class ApiKeyAuth:
    """Lets the generated requests carry an API key, where they are not about its absence."""

    key = ""  # made when the server runs

    def get(self, case: schemathesis.Case, context: schemathesis.AuthContext) -> str:
        return self.key

    def set(self, case: schemathesis.Case, data: str, context: schemathesis.AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@pytest.fixture(scope="module")
def url(
    zoo: Path, bundle: tuple[str, bytes], make_body: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    storage = tmp_path_factory.mktemp("storage")
    with running_server(models=zoo, allow_toy_parameters=True, open=False, storage=storage) as server:
        database = Database(Settings(storage=str(storage)).database_url)
        tenants = TenantStore(database)
        tenants.create("tester")
        ApiKeyAuth.key = tenants.make_key("tester", [Scope.ADMIN])
        database.close()
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {ApiKeyAuth.key}"}) as http:
            http.put(f"/v2/keys/{bundle[0]}", content=bundle[1])
            body = make_body()
            assert http.post("/v2/models/tiny/infer", content=body.content, headers=body.headers).status_code == 200
        yield server.url


described = schemathesis.openapi.from_dict(description())
described.auth()(ApiKeyAuth)


@described.parametrize()
@hypothesis.settings(max_examples=10, deadline=None, derandomize=True, database=None)
def test_every_described_operation_answers_as_described_and_never_fails(case: schemathesis.Case, url: str) -> None:
    # No JSON schema can say which bytes are a container: ours are refused although they are what is described.
    case.call_and_validate(base_url=url, timeout=30, excluded_checks=[checks.positive_data_acceptance])


def test_the_served_description_is_the_tested_one(url: str) -> None:
    assert httpx.get(f"{url}/openapi.json").json() == json.loads(json.dumps(description()))
