"""Models of a table, asked through a real server: raw values in; logits, probabilities, or several outputs out."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest

from ciphershift import Client, errors
from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import Keystore, tables
from ciphershift.client.cli import samples
from ciphershift.client.image_files import describe, rows
from ciphershift.client.images import to_integers
from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.layers import Linear, LookUp
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program
from ciphershift.protocol.encoding import Encoding
from ciphershift.protocol.outputs import Part

ENCODING = Encoding(origin=(50.0, 0.0), step=(0.5, 2.0), lowest=(-80, -127), names=("age", "dose"))
PROGRAM = Program(
    name="table",
    version="1",
    params="TOY_N128",
    input=InputSpec(shape=(2,), levels=255, delta=1 / 2048, encoding=ENCODING),
    layers=(
        Linear(name="sums", weight=np.array([[1, 1], [2, -1], [-1, 0]], dtype=np.int8)),
        LookUp(
            name="bumps",
            bias=np.full(3, 200, dtype=np.int32),
            multiplier=np.full(3, 64 / 800),
            values=np.rint(15 * np.sin(np.arange(64) / 9))[None].repeat(3, axis=0).astype(np.int16),
            delta_out=1 / 256,
        ),
        Linear(name="logits", weight=np.array([[1, -1, 2], [-2, 1, 1]], dtype=np.int8)),
    ),
    output=OutputSpec(classes=("well", "ill"), scale=0.1, function="softmax"),
)
SEVERAL = replace(
    PROGRAM,
    name="several",
    layers=(
        *PROGRAM.layers[:-1],
        Linear(name="outputs", weight=np.array([[1, -1, 2], [-2, 1, 1], [1, 1, 1]], dtype=np.int8)),
    ),
    output=OutputSpec(
        classes=("well", "ill", "days"),
        scale=0.1,
        parts=(
            Part(name="state", shape=(2,), function="softmax"),
            Part(name="stay", shape=(1,), factor=0.001),
        ),
    ),
)
RAW = np.array([[61.0, -12.5], [34.2, 200.0], [50, 0]])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder: Path = tmp_path_factory.mktemp("zoo")
    PROGRAM.save(folder / "table")
    SEVERAL.save(folder / "several")
    with running_server(models=folder, allow_toy_parameters=True, engine="local://?threads=1") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: ServerProcess, keystore: Keystore) -> Iterator[Client]:
    with Client(server.url, model="table", keystore=keystore, allow_toy_parameters=True) as client:
        yield client


def test_raw_values_are_encoded_by_the_client(client: Client) -> None:
    steps = (ENCODING.integers(RAW, 255) - np.array(ENCODING.lowest)).astype(np.uint8)
    rng = np.random.default_rng(0)
    runs = np.stack([simulate.run(PROGRAM, params.get(PROGRAM.params), steps, rng) for _ in range(200)])
    # Of 5000 simulations the farthest was at 5.1 deviations; features in each other's place are at 16.
    assert np.abs((client.predict(RAW) - runs.mean(axis=0)) / runs.std(axis=0)).max() < 6.5
    assert client.predict(RAW).shape == (3, 2)


def test_probabilities_are_the_softmax_of_the_logits(client: Client) -> None:
    found = client.predict_proba(RAW)
    assert np.allclose(found.sum(axis=1), 1.0)
    assert (found.argmax(axis=1) == client.predict(RAW).argmax(axis=1)).all()


def test_a_value_outside_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(errors.OutOfLevelsError, match=r"age is 140 in sample 1; the model takes 10 to 137.5"):
        client.predict([[50.0, 0.0], [140.0, 0.0]])


def test_columns_of_a_data_frame_are_taken_by_their_names(client: Client) -> None:
    """In any order, as in a file; a row of it, too. What a position means no client can tell."""
    profile = client.profile()
    frame = pandas.DataFrame({"ward": [1.0, 2.0, 3.0], "dose": RAW[:, 1], "age": RAW[:, 0]})
    wanted = to_integers(RAW, profile)
    assert np.array_equal(to_integers(frame, profile), wanted)
    assert np.array_equal(to_integers(frame.iloc[1], profile), wanted[1:2])
    assert np.array_equal(to_integers(pandas.DataFrame(RAW), profile), wanted)  # its columns have no names
    mixed = frame.assign(dose=frame["dose"].astype(object), note="seen", age=frame["age"] > 40)
    ages = to_integers(np.stack([frame["age"] > 40, RAW[:, 1]], axis=1) + 10.0 * np.array([1, 0]), profile)
    assert np.array_equal(to_integers(mixed.assign(age=mixed["age"] + 10), profile), ages)
    assert np.array_equal(to_integers(mixed.assign(age=mixed["age"] + 10).iloc[2], profile), ages[2:])
    with pytest.raises(errors.OutOfLevelsError, match="holds something else than numbers"):
        client.predict(frame.assign(dose="much"))
    with pytest.raises(errors.BadShapeError, match="has 0 columns 'dose'; the model takes age, dose"):
        client.predict(frame[["age", "ward"]])
    with pytest.raises(errors.BadShapeError, match="has 2 columns 'age'"):
        client.predict(pandas.concat([frame, frame["age"]], axis=1))


def test_a_model_of_logits_has_no_probabilities(client: Client) -> None:
    profile = client.profile().model_copy(update={"output_function": None})
    with pytest.raises(errors.ConfigurationError, match="ends in logits"):
        profile.probabilities(np.zeros((1, 2)))


def test_several_outputs_are_a_dict(server: ServerProcess, keystore: Keystore) -> None:
    steps = (ENCODING.integers(RAW, 255) - np.array(ENCODING.lowest)).astype(np.uint8)
    rng = np.random.default_rng(0)
    runs = np.stack([simulate.run(SEVERAL, params.get(SEVERAL.params), steps, rng) for _ in range(200)])
    with Client(server.url, model="several", keystore=keystore, allow_toy_parameters=True) as client:
        answer, given, profile = client.predict(RAW), client.predict_proba(RAW), client.profile()
        job = client.submit(RAW[:1])
        later = job.result()
    assert {name: values.shape for name, values in answer.items()} == {"state": (3, 2), "stay": (3, 1)}
    found = np.concatenate([answer["state"], answer["stay"]], axis=1)
    assert np.abs((found - runs.mean(axis=0)) / runs.std(axis=0)).max() < 6.5
    assert np.allclose(given["state"].sum(axis=1), 1)
    assert np.abs(given["stay"]).max() < 0.1  # in its own unit
    assert {name: values.shape for name, values in later.items()} == {"state": (1, 2), "stay": (1, 1)}
    (first, *_) = (describe("row 1", row, profile) for row in rows(answer))
    best = ("well", "ill")[int(answer["state"][0].argmax())]
    assert first.startswith(f"row 1: state {best} (logit ")
    assert first.endswith(f"; stay days ({answer['stay'][0, 0]:.2f})")


def test_a_model_of_one_value_is_described(client: Client) -> None:
    """It has no second class to name."""
    profile = client.profile().model_copy(update={"classes": ("spam",)})
    assert describe("mail.png", np.array([0.3]), profile) == "mail.png: spam (0.30)"


def test_rows_of_a_table_are_predicted(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "patients.csv"
    file.write_text("ward,dose,age\nnorth,-12.5,61\nsouth,200,34.2\n")
    names, values = samples.read([file], client.profile())
    assert names == [f"{file}, line 2", f"{file}, line 3"]
    assert np.array_equal(values, RAW[:2])
    assert client.predict(values).shape == (2, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age,dose\n34,1,200\n", r"line 2: more cells than the header has columns \(2\): write numbers with a point"),
        ("age,dose,age\n34,1,35\n", "has the column age 2 times"),
    ],
)
def test_tables_that_can_be_read_in_two_ways_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "patients.csv"
    file.write_text(text)
    with pytest.raises(errors.MalformedError, match=message):
        tables.read(file, ("age", "dose"), (2,))
    with pytest.raises(errors.MalformedError, match=message):
        tables.read_sequence(file, ("age", "dose"), 2)


def test_empty_cells_behind_the_last_column_are_none(tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text("age,dose\n34,1,\n35,2,,\n")
    values, _ = tables.read(tmp_path / "patients.csv", ("age", "dose"), (2,))
    assert values.tolist() == [[34, 1], [35, 2]]


WORDS = ("age", "ward=north", "ward=south")


def test_columns_of_words_become_their_features(tmp_path: Path) -> None:
    file = tmp_path / "patients.csv"
    file.write_text("\ufeffward,age,note\nsouth,61.5,x\nnorth,7,y\n", encoding="utf-8")
    values, lines = tables.read(file, WORDS, (3,))
    assert values.tolist() == [[61.5, 0, 1], [7, 1, 0]]
    assert lines == [2, 3]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("age,ward\n61,east\n", errors.MalformedError, "line 2: ward is 'east'; the model knows north, south"),
        ("age,ward\nold,north\n", errors.MalformedError, "line 2: age is 'old', which is no number"),
        ("age,ward\n61\n", errors.MalformedError, "line 2: ward is None"),
        ("age,room\n61,north\n", errors.BadShapeError, "no column 'ward'; the model takes age, ward=north, ward=south"),
        ("age,ward\n", errors.MalformedError, "no row below its header"),
    ],
)
def test_tables_that_cannot_be_read_name_line_and_column(
    text: str, error: type[errors.CiphershiftError], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "patients.csv"
    file.write_text(text)
    with pytest.raises(error, match=message):
        tables.read(file, WORDS, (3,))
    with pytest.raises(errors.BadShapeError, match="models with named features"):
        tables.read(file, (), (1, 28, 28))
