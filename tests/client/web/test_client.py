"""The JavaScript client in Node, against a real server that serves the tiny network under TOY parameters."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import Client, Keystore
from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.program import Program
from ciphershift.server.store.tenants import Scope
from tests.client.conftest import Between, failing
from tests.support.tenants import tenant

REPEATS = 50
CONNECT = """
  import { Client, Keystore } from "./dist/index.js";
  import { FolderStore } from "./dist/node.js";
  const [url, folder, ...given] = process.argv.slice(1);
  const keystore = new Keystore(new FolderStore(folder));
  const connect = (options = {}) => Client.connect(url, { model: "tiny", keystore, allowToyParameters: true, ...options });
  const codeOf = work => work.then(() => "no error", error => error.code);
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def images(tiny_images: NDArray[np.uint8]) -> str:
    return json.dumps(tiny_images.reshape(len(tiny_images), -1).tolist())


def test_logits_are_the_simulated_ones_in_as_few_jobs_as_the_server_takes_them_in(
    node: Callable[..., Any],
    server: ServerProcess,
    folder: Path,
    images: str,
    tiny_program: Program,
    tiny_images: NDArray[np.uint8],
) -> None:
    """Four images fit into one job; 130 are cut into three, for a server that takes 64."""
    few, many = node(
        f"""{CONNECT}
        const client = await connect(), images = JSON.parse(given[0]).map(each => Uint8Array.from(each));
        const few = await client.predict(images), before = new Set((await client.jobs()).map(job => job.id));
        const many = await client.predict(Array.from({{ length: 130 }}, (_, at) => images[at % 4]));
        console.log(JSON.stringify([few, [many, (await client.jobs()).filter(job => !before.has(job.id)).length]].map(
          part => part[0] instanceof Float64Array ? part.map(row => Array.from(row)) : [part[0].map(row => Array.from(row)), part[1]])));
        """,
        server.url,
        folder,
        images,
    )
    rng = np.random.default_rng(2)
    toy = params.get(tiny_program.params)
    runs = np.stack([simulate.run(tiny_program, toy, tiny_images, rng) for _ in range(REPEATS)])
    mean, std = runs.mean(axis=0), runs.std(axis=0)
    assert np.abs((np.array(few) - mean) / std).max() < 5.0
    rows, jobs = many
    assert jobs == 3
    assert np.abs((np.array(rows) - np.resize(mean, (130, 3))) / np.resize(std, (130, 3))).max() < 6.5


def test_a_job_outlives_its_process_and_python_reads_its_answer_too(
    node: Callable[..., Any], server: ServerProcess, folder: Path, images: str
) -> None:
    job_id = node(
        f"""{CONNECT}
        const client = await connect();
        const job = await client.submit(JSON.parse(given[0]).map(each => Uint8Array.from(each)));
        console.log(JSON.stringify(job.id));
        """,
        server.url,
        folder,
        images,
    )
    there = node(
        f"""{CONNECT}
        const job = await (await connect()).job(given[0]);
        console.log(JSON.stringify((await job.result()).map(row => Array.from(row))));
        """,
        server.url,
        folder,
        job_id,
    )
    with Client(server.url, model="tiny", keystore=Keystore(folder), allow_toy_parameters=True) as client:
        assert client.job(job_id).result().tolist() == there


def test_keys_that_the_server_has_dropped_are_sent_again(
    node: Callable[..., Any], server: ServerProcess, folder: Path, images: str
) -> None:
    script = f"""{CONNECT}
      const client = await connect(), image = Uint8Array.from(JSON.parse(given[0])[0]);
      const keyId = await client.prepare();
      await fetch(`${{url}}/v2/keys/${{keyId}}`, {{ method: "DELETE" }});
      await client.predict(image);
      console.log(JSON.stringify(keyId));
    """
    key_id = node(script, server.url, folder, images)
    assert httpx.get(f"{server.url}/v2/keys/{key_id}").is_success


def test_a_client_goes_on_when_its_model_was_replaced(
    node: Callable[..., Any], folder: Path, images: str, tiny_program: Program, tmp_path: Path
) -> None:
    """The profile is read again, once, when an answer is by another version of the model than it names: as Python's client does it."""
    models, storage = tmp_path / "models", tmp_path / "storage"
    tiny_program.save(models / "tiny")
    for version in ("2", "3"):
        replace(tiny_program, version=version).save(tmp_path / version)
    with running_server(models=models, storage=storage, allow_toy_parameters=True, open=False) as server:
        api_key = tenant(storage, "operator", Scope.INFER, Scope.KEYS, Scope.ADMIN)
        found = node(
            f"""{CONNECT}
            import {{ cp }} from "node:fs/promises";
            const [models, apiKey, images] = given;
            const client = await connect({{ apiKey }}), pixels = JSON.parse(images).map(each => Uint8Array.from(each));
            const replaceBy = async version => {{
              await cp(`${{models}}/../${{version}}`, `${{models}}/tiny`, {{ recursive: true }});
              const headers = {{ Authorization: `Bearer ${{apiKey}}` }};
              const loaded = await fetch(`${{url}}/v2/repository/models/tiny/load`, {{ method: "POST", headers }});
              if (!loaded.ok) throw new Error(await loaded.text());
            }};
            const versions = [client.profile.version];
            await replaceBy("2");
            const rows = await client.predict(pixels);
            versions.push(client.profile.version);
            const jobs = (await client.jobs()).length;
            await replaceBy("3");
            const refused = await codeOf((await client.submit(pixels)).result()); // its images are not kept, so they cannot be sent again
            const job = await client.submit(pixels);
            await job.result();
            versions.push(client.profile.version);
            console.log(JSON.stringify({{ versions, rows: rows.length, jobs, refused }}));
            """,
            server.url,
            folder,
            models,
            api_key,
            images,
        )
    assert found == {"versions": ["1", "2", "3"], "rows": 4, "jobs": 2, "refused": "wrong_answer"}


@pytest.mark.parametrize("code", ["model_changed", "unknown_key"])
def test_a_job_of_which_nothing_was_computed_is_sent_once_more(
    node: Callable[..., Any],
    server: ServerProcess,
    between: Callable[..., AbstractContextManager[Between]],
    folder: Path,
    images: str,
    code: str,
) -> None:
    with between(failing(code, 1)) as middle:
        rows = node(
            f"""{CONNECT}
            const before = await Client.connect(given[1], {{ model: "tiny", keystore, allowToyParameters: true }});
            await before.prepare(); // what lies between takes no chunks
            const client = await connect(), rows = await client.predict(JSON.parse(given[0]).map(each => Uint8Array.from(each)));
            console.log(rows.length);
            """,
            middle.url,
            folder,
            images,
            server.url,
        )
    assert rows == 4
    assert sum(method == "POST" for method, _ in middle.seen) == 2


def test_mistakes_have_the_codes_that_they_have_in_python(
    node: Callable[..., Any], server: ServerProcess, folder: Path, images: str
) -> None:
    codes = node(
        f"""{CONNECT}
        const client = await connect(), image = Uint8Array.from(JSON.parse(given[0])[0]);
        const stopped = new AbortController();
        const stop = ({{ stage }}) => stage === "job" && stopped.abort();
        console.log(JSON.stringify([
          await codeOf(connect({{ allowToyParameters: false }})),
          await codeOf(connect({{ model: "large" }})),
          await codeOf(Client.connect("http://127.0.0.1:9", {{ model: "tiny" }})),
          await codeOf(client.predict(image.subarray(1))),
          await codeOf(client.predict([])),
          await codeOf(client.submit(new Array(65).fill(image))),
          await codeOf(client.job("0".repeat(32))),
          await codeOf(client.predict(new Array(32).fill(image), {{ signal: stopped.signal, onProgress: stop }})),
          await codeOf(client.predict(new Array(32).fill(image), {{ timeoutSeconds: 0.01 }})),
          await codeOf(client.close().then(() => client.predict(image))),
          await codeOf(client.models()),
        ]));
        """,
        server.url,
        folder,
        images,
    )
    assert codes == [
        *("insecure_params", "unknown_model", "unreachable", "bad_shape", "bad_shape", "bad_shape", "unknown_job"),
        *("canceled", "deadline", "closed", "closed"),
    ]
