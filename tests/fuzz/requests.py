"""Requests over HTTP to an application in this process: each is answered, and none by an error of the server."""

import json
import tempfile
from pathlib import Path

import atheris

from ciphershift.protocol import tensors
from ciphershift.server.app import create_app
from ciphershift.server.settings import Settings
from tests.fuzz.target import changed, run
from tests.support.in_process import InProcess

METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "BREW")
PATHS = (
    "/v2",
    "/v2/health/live",
    "/v2/models/mnist-tiny",
    "/v2/models/mnist-tiny/infer",
    "/v2/models/mnist-tiny/jobs",
    "/v2/models/mnist-tiny/stem",
    "/v2/models/mnist-tiny/versions/1",
    f"/v2/keys/{'0' * 64}",
    f"/v2/jobs/{'0' * 32}",
    f"/v2/jobs/{'0' * 32}/events",
    f"/v2/jobs/{'0' * 32}/result",
    "/v2/repository/index",
    "/v2/repository/models/mnist-tiny/unload",
    "/metrics",
    "/openapi.json",
)
HEADERS = (
    "Idempotency-Key",
    "Content-Type",
    "Prefer",
    "Range",
    "If-None-Match",
    "Last-Event-ID",
    "Origin",
    "Authorization",
    "traceparent",
)
INFER = {
    "id": "1",
    "parameters": {"key_id": "0" * 64, "image_shape": "1x28x28"},
    "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 8}}],
}


def one(data: bytes) -> None:
    """Method, path, one header, then a body: an inference request with a change, or any bytes."""
    choose = atheris.FuzzedDataProvider(data)
    method = METHODS[choose.ConsumeIntInRange(0, len(METHODS) - 1)]
    path = PATHS[choose.ConsumeIntInRange(0, len(PATHS) - 1)]
    if choose.ConsumeBool():
        path += "/" + "".join(f"%{byte:02x}" for byte in choose.ConsumeBytes(12))
    if choose.ConsumeBool():
        path += "?" + "".join(f"%{byte:02x}" for byte in choose.ConsumeBytes(12)) + "=1"
    headers = {}
    if choose.ConsumeBool():
        name = HEADERS[choose.ConsumeIntInRange(0, len(HEADERS) - 1)]
        headers[name] = "".join(chr(c) for c in choose.ConsumeBytes(60) if 32 < c < 127) or "x"
    if choose.ConsumeBool():
        text = json.dumps(changed(choose, INFER)).encode()
        body = text + choose.ConsumeBytes(64)
        headers[tensors.HEADER_LENGTH] = str(len(text) if choose.ConsumeBool() else choose.ConsumeInt(4))
    else:
        body = choose.ConsumeBytes(300)
    answer = HTTP.request(method, path, content=body, headers=headers)
    assert answer.status_code < 500 or answer.status_code == 501, (
        method,
        path,
        headers,
        answer.status_code,
        answer.text,
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as storage:
        settings = Settings(models=Path("models/zoo"), storage=storage, engine="queue://", open=True, metrics=True)
        with InProcess(create_app(settings)) as HTTP:
            run(
                "requests",
                one,
                [bytes(range(n, n + 64)) for n in range(0, 192, 16)],
                ["ciphershift.server", "ciphershift.protocol"],
            )
