"""Inputs that are no images, from the client to the answer: by Python and by JavaScript."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import Client, Keystore
from ciphershift.client._wire import InputEncoding, ModelProfile
from ciphershift.client.images import to_integers, to_unit
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import Program
from ciphershift.protocol import scaling
from ciphershift.protocol.encoding import Encoding
from ciphershift.server.store.tenants import Scope
from tests.support import other_inputs
from tests.support.tenants import tenant

SHARES = np.array([[1, 1, 0, 0], [0, 0.2, 0.9, 1], [0.6, 0.7, 0.2, 0.1]])
LEAST, MOST = (np.array(values) for values in zip(*(field[1:] for field in other_inputs.FIELDS), strict=True))
ROWS = LEAST + (MOST - LEAST) * SHARES
HIGHER = [1, 0, 1]
FINE = 0.04
"""Of a score: ten deviations of its noise, a quarter of one that an answer has which is not refined."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    models = tmp_path_factory.mktemp("models")
    table = replace(other_inputs.table(), params="TOY_N128")
    table.save(models / "table")
    replace(other_inputs.scores(), params="TOY_N128").save(models / "scores")
    replace(other_inputs.sequences(), params="TOY_N128").save(models / "sequences")
    with running_server(models=models, allow_toy_parameters=True, engine="local://?threads=1") as process:
        yield process


@pytest.mark.parametrize("model", ["table", "scores"])
def test_rows_of_a_table_are_classified(model: str, server: ServerProcess, keystore: Keystore) -> None:
    with Client(server.url, model=model, keystore=keystore, allow_toy_parameters=True) as client:
        assert client.profile().input_shape == (4,)
        logits = client.predict(ROWS)
        assert logits.argmax(axis=1).tolist() == HIGHER
        if model == "scores":
            assert np.abs(logits - exact_scores()).max() < FINE
        assert client.predict(ROWS[1]).argmax() == 0


@pytest.mark.parametrize("model", ["table", "scores"])
def test_rows_of_a_table_are_classified_by_javascript(
    model: str, server: ServerProcess, node: Callable[..., Any]
) -> None:
    logits = node(
        """
        import { Client } from "./dist/index.js";
        const [url, model, rows] = process.argv.slice(1);
        const client = await Client.connect(url, { model, allowToyParameters: true });
        const found = await client.predict(JSON.parse(rows).map(row => Float64Array.from(row)));
        console.log(JSON.stringify(found.map(row => Array.from(row))));
        """,
        server.url,
        model,
        json.dumps(ROWS.tolist()),
    )
    assert np.array(logits).argmax(axis=1).tolist() == HIGHER
    if model == "scores":
        assert np.abs(logits - exact_scores()).max() < FINE


def test_rows_are_encoded_for_the_model_they_are_sent_to(node: Callable[..., Any], tmp_path: Path) -> None:
    """A model gets another encoding, and another call of the same client hears of it, while the first one looks for its keys."""
    models, storage, first = tmp_path / "models", tmp_path / "storage", replace(other_inputs.table(), params="TOY_N128")
    assert first.input.encoding is not None
    coarse = replace(first.input.encoding, step=tuple(np.array(first.input.encoding.step) * [2, 2, 1, 1]))
    second = replace(first, version="2", input=replace(first.input, encoding=coarse))
    first.save(models / "table")
    second.save(tmp_path / "2")
    row = LEAST + (MOST - LEAST) * [0.5, 0.5, 0.4, 0.4]
    with running_server(models=models, storage=storage, allow_toy_parameters=True, open=False) as server:
        api_key = tenant(storage, "operator", Scope.INFER, Scope.KEYS, Scope.ADMIN)
        found = node(
            """
            import { Client } from "./dist/index.js";
            import { cp } from "node:fs/promises";
            const [url, models, apiKey, values] = process.argv.slice(1);
            const client = await Client.connect(url, { model: "table", apiKey, allowToyParameters: true });
            const row = Float64Array.from(JSON.parse(values)), best = logits => logits.indexOf(Math.max(...logits));
            const classes = [];
            const send = globalThis.fetch;
            globalThis.fetch = async (...call) => {
              if (!String(call[0]).includes("/v2/keys/")) return send(...call);
              globalThis.fetch = send;
              await cp(`${models}/../2`, `${models}/table`, { recursive: true });
              const headers = { Authorization: `Bearer ${apiKey}` };
              const loaded = await send(`${url}/v2/repository/models/table/load`, { method: "POST", headers });
              if (!loaded.ok) throw new Error(await loaded.text());
              classes.push(best(await client.predict(row)));
              return send(...call);
            };
            classes.push(best(await client.predict(row)));
            console.log(JSON.stringify(classes));
            """,
            server.url,
            models,
            api_key,
            json.dumps(row.tolist()),
        )
    assert [plainly(program, row[None]).argmax() for program in (first, second)] == [1, 0], "the encodings tell"
    assert found == [0, 0]


def exact_scores() -> NDArray[np.float64]:
    """Logits of the rows without noise."""
    return plainly(replace(other_inputs.scores(), params="TOY_N128"), ROWS)


def plainly(program: Program, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits of raw values without noise."""
    assert program.input.encoding is not None
    levels = program.input.encoding.integers(rows, program.input.levels)
    lowest = np.array(program.input.encoding.lowest)
    return simulate.plain(program, (levels - lowest).astype(np.uint8)) * program.output.scales


def test_sequences_of_all_lengths_are_classified_by_javascript(server: ServerProcess, node: Callable[..., Any]) -> None:
    classes = other_inputs.SERIES_CLASSES
    one, several, later, refused = node(
        """
        import { Client } from "./dist/index.js";
        const [url, series] = process.argv.slice(1);
        const client = await Client.connect(url, { model: "sequences", allowToyParameters: true });
        const inputs = JSON.parse(series).map(rows => ({ steps: rows[0].length, values: Float64Array.from(rows.flat()) }));
        const best = logits => logits.indexOf(Math.max(...logits));
        const refused = await client.predict({ steps: 5, values: new Float64Array(10) }).catch(error => [error.code, error.message]);
        const later = await (await client.submit(inputs.slice(0, 2))).result();
        const [one, several] = [await client.predict(inputs[3]), await client.predict(inputs)];
        console.log(JSON.stringify([best(one), several.map(best), later.map(best), refused]));
        """,
        server.url,
        json.dumps([series.tolist() for series in other_inputs.SERIES]),
    )
    assert (one, several, later) == (classes[3], classes, classes[:2])
    assert refused[0] == "bad_shape" and "1 to 4 steps: cut longer sequences" in refused[1]


def test_both_languages_pad_alike(node: Callable[..., Any]) -> None:
    """Bytes stand for 0 to 1 where the model has no encoding, or one of pixels, and are raw values otherwise."""
    spec = other_inputs.sequences().input
    assert spec.encoding is not None
    pixels = np.array([[51, 255, 102, 0], [0, 204, 153, 255]], dtype=np.uint8)
    raw = pixels / 255 * np.array([[0.9], [60.0]])
    cases, here = [], []
    for encoding, values in ((spec.encoding, raw), (None, pixels), (replace(spec.encoding, pixels=True), pixels)):
        told = encoding and asdict(encoding)
        members: dict[str, Any] = {"model": "m", "input_shape": spec.shape, "input_levels": 15, "input_sequences": True}
        profile = ModelProfile.model_construct(**members, input_encoding=InputEncoding(**told) if told else None)
        for steps in (1, 2, 4):
            given = values[:, :steps]
            made = to_integers(given, profile) if told else scaling.to_integers(to_unit(given, profile), 15)
            here.append(made.reshape(-1).tolist())
            cases.append([told, values.dtype == np.uint8, steps, given.reshape(-1).tolist()])
    there = node(
        """
        import { toLevels } from "./dist/index.js";
        const shape = [3, 4];
        const found = JSON.parse(process.argv[1]).map(([inputEncoding, isBytes, steps, given]) => {
          const profile = { model: "m", inputShape: shape, sampleShape: shape, inputLevels: 15, inputSequences: true, inputEncoding };
          const values = (isBytes ? Uint8Array : Float64Array).from(given);
          return Array.from(toLevels({ steps, values }, profile));
        });
        console.log(JSON.stringify(found));
        """,
        json.dumps(cases),
    )
    assert there == here
    assert [made[8:] for made in here[:3]] == [[0, 0, 0, 15], [0, 0, 15, 15], [15] * 4]


def test_both_languages_make_the_same_integers_of_raw_values(node: Callable[..., Any]) -> None:
    """Halves are rounded to even, below zero, too; what lies outside is refused by its name."""
    encoding = Encoding(origin=(0.0, 10.0), step=(0.5, 2.0), lowest=(-8, 0), names=("dose", "age"))
    raw = np.array([[-4.0, -1.25, -0.75, 0.25, 0.75, 3.4], [10.0, 11.0, 13.0, 15.0, 17.5, 40.0]])
    script = """
      import { integersOf } from "./dist/encoding.js";
      const [encoding, raw, levels] = process.argv.slice(1).map(text => JSON.parse(text));
      try {
        console.log(JSON.stringify(Array.from(integersOf(Float64Array.from(raw.flat()), encoding, levels))));
      } catch (error) {
        console.log(JSON.stringify([error.code, error.message]));
      }
    """
    there = node(script, json.dumps(asdict(encoding)), json.dumps(raw.tolist()), 15)
    assert there == encoding.integers(raw[None], 15).reshape(-1).tolist()
    assert node(script, json.dumps(asdict(encoding)), json.dumps([[4.0], [10.0]]), 15) == [
        "out_of_levels",
        "dose is 4; the model takes -4 to 3.5",
    ]


def test_what_the_folder_says_of_inputs_is_told(tmp_path: Path, node: Callable[..., Any]) -> None:
    other_inputs.save(tmp_path)
    with running_server(models=tmp_path, engine="local://?threads=1") as server:
        said = httpx.get(f"{server.url}/v2/models/table/inputs").json()
        found = node(
            """
            import { Client } from "./dist/index.js";
            const read = async model => {
              const { images, examples } = await (await Client.connect(process.argv[1], { model })).inputs();
              return { images, examples: examples.map(({ name, label, values }) => [name, label, Array.from(values)]) };
            };
            console.log(JSON.stringify([await read("table"), await read("scan")]));
            """,
            server.url,
        )
    assert said["examples"][0]["values"] == other_inputs.LOW_ROW
    table, scan = found
    assert table["examples"] == [["row 1", "low", other_inputs.LOW_ROW]]
    assert scan["images"] == "photograph"
    assert scan["examples"] == [["scan 1", "bright top", other_inputs.bright_top().tolist()]]
