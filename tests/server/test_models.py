"""Health, metadata and profile, in the protocol's words."""

import asyncio
import secrets
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi.responses import StreamingResponse

from ciphershift.benchmarks.harness.server_process import ServerProcess
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.program import Program
from ciphershift.server.api.routes.models import PIECE_BYTES, model_stem


def test_health_and_metadata(server: ServerProcess) -> None:
    assert httpx.get(f"{server.url}/v2/health/live").json() == {"live": True}
    assert httpx.get(f"{server.url}/v2/health/ready").json() == {"ready": True}
    assert "binary_tensor_data" in httpx.get(f"{server.url}/v2").json()["extensions"]
    assert [m["name"] for m in httpx.get(f"{server.url}/v2/models").json()["models"]] == ["tiny"]
    assert httpx.get(f"{server.url}/v2/models/tiny/ready").json()["ready"]
    assert httpx.get(f"{server.url}/v2/models/tiny").json()["parameters"]["bootstraps"] == 144


def test_the_profile_says_what_a_client_needs(server: ServerProcess, tiny_program: Program) -> None:
    profile = httpx.get(f"{server.url}/v2/models/tiny/profile").json()
    assert profile["params_id"] == params.get(tiny_program.params).id
    assert profile["input_shape"] == [1, 8, 8]
    assert profile["classes"] == ["a", "b", "c"]
    assert profile["bootstraps"] == tiny_program.lookups
    assert profile["turns_to_logits"] == tiny_program.turns_to_logits
    assert sum(layer["lookups"] for layer in profile["layers"]) == tiny_program.lookups
    assert {key for layer in profile["layers"] for key in layer} == {"name", "kind", "lookups"}, "and no weight"
    assert "weights" not in profile


@pytest.mark.parametrize("path", ["models/none", "models/none/profile", "models/none/ready"])
def test_an_unknown_model_is_said_so(server: ServerProcess, path: str) -> None:
    answer = httpx.get(f"{server.url}/v2/{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")
    assert "tiny" in answer.json()["detail"]


def test_a_public_part_is_sent_in_pieces() -> None:
    """So that no more than a piece waits in memory for a client that reads slowly."""
    onnx = secrets.token_bytes(2 * PIECE_BYTES + 1)
    model: Any = SimpleNamespace(program=SimpleNamespace(name="m", stem=SimpleNamespace(onnx=onnx, sha256="ab")))

    async def read() -> list[Any]:
        answer = await model_stem(model)
        assert isinstance(answer, StreamingResponse)
        assert answer.headers["Content-Length"] == str(len(onnx))
        return [piece async for piece in answer.body_iterator]

    pieces = asyncio.run(read())
    assert b"".join(pieces) == onnx
    assert max(map(len, pieces)) == PIECE_BYTES


@pytest.mark.parametrize(
    ("known", "status"),
    [(None, 200), ('"ab"', 304), ('"cd", W/"ab"', 304), ("*", 304), ('"cd"', 200), ("ab", 200), ("", 200)],
)
def test_a_public_part_that_the_client_has_is_not_sent(known: str | None, status: int) -> None:
    model: Any = SimpleNamespace(program=SimpleNamespace(name="m", stem=SimpleNamespace(onnx=b"x", sha256="ab")))
    answer = asyncio.run(model_stem(model, known))
    assert (answer.status_code, answer.headers["ETag"]) == (status, '"ab"')


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "v2/nothing", 404), ("POST", "v2/models", 405)])
def test_errors_of_the_framework_are_problems_too(server: ServerProcess, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, f"{server.url}/{path}")
    assert answer.status_code == answer.json()["status"] == status
    assert answer.headers["Content-Type"] == "application/problem+json"
