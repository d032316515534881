"""Data as people have them become bytes, and clients send the raw values."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

from ciphershift.client import image_files
from ciphershift.errors import OutOfLevelsError, OverBudgetError, UnreadableDataError
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import Program
from ciphershift.models import verification
from ciphershift.models.cli import app
from ciphershift.models.compiler.convert import before_rounding, convert
from ciphershift.models.compiler.export import export
from ciphershift.models.compiler.inputs import Inputs, decoded, fit_encoding
from ciphershift.models.training import cards, folds, own_data, sets
from ciphershift.models.training.data import Split
from ciphershift.models.training.loop import accuracy, fine_tune, fit, logits
from ciphershift.models.training.phase import Phase
from ciphershift.models.training.recipes import RECIPES, Conversion, DenseSpec, Recipe
from ciphershift.models.training.sets import Reading, Splits
from ciphershift.protocol.sequences import padded

RNG = np.random.default_rng(0)
AGE, DOSE = RNG.integers(18, 95, 300), RNG.normal(3.0, 40.0, 300)


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """Numbers of three kinds, a column of words, and a target."""
    path = tmp_path / "patients.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["age", "dose", "ward", "ill"])
        for number, (age, dose) in enumerate(zip(AGE, DOSE, strict=True)):
            rows.writerow([age, f"{dose:.6f}", "north" if number % 3 else "south", "yes" if age + dose > 60 else "no"])
    return path


def test_a_table_has_names_classes_and_a_range_for_each_feature(patients: Path) -> None:
    splits = Splits.load(str(patients), reading=Reading(target="ill", standardize=True))
    assert splits.classes == ("no", "yes")
    assert splits.validation is not None
    assert [len(part.labels) for part in (splits.train, splits.validation, splits.test)] == [217, 38, 45]
    encoding = splits.inputs.encoding
    assert encoding is not None
    assert encoding.names == ("age", "dose", "ward=north", "ward=south")
    raw = splits.inputs.raw_of(splits.train.images)
    exact = own_data.read(patients, "ill").divided().train.values
    # Half a step of each feature, of which there are at most 255 over its range and a tenth on each side.
    assert (np.abs(raw - exact).max(axis=0) <= np.array(encoding.step) / 2 * 1.001).all()
    assert np.array(splits.inputs.mean) == pytest.approx(exact.mean(axis=0))


def test_a_value_outside_is_an_error_that_names_the_feature(patients: Path) -> None:
    encoding = Splits.load(str(patients), reading=Reading(target="ill")).inputs.encoding
    assert encoding is not None
    with pytest.raises(OutOfLevelsError, match=r"age is 190 in sample 1; the model takes 18 to 103"):
        encoding.integers(np.array([[50, 3.0, 1, 0], [190, 3.0, 1, 0]]), 255)
    with pytest.raises(OutOfLevelsError, match="dose is nan"):
        encoding.integers(np.array([[50, np.nan, 1, 0]]), 255)


def test_raw_values_are_evaluated_as_the_module_does(patients: Path, tmp_path: Path) -> None:
    """Signed inputs, each with its own scale, encrypted; the normalization that the module expects is part of the input."""
    torch.manual_seed(0)
    splits = Splits.load(str(patients), reading=Reading(target="ill", standardize=True))
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).eval()
    network = convert(
        module, splits.inputs.raw_of(splits.train.images), params="TOY_N128", inputs=splits.inputs, levels=63
    )
    network.eval()
    raw = own_data.read(patients, "ill").divided().test
    assert raw is not None
    mean, std = (np.array(v) for v in (splits.inputs.mean, splits.inputs.std))
    with torch.no_grad():
        expected = module(torch.tensor((raw.values - mean) / std).float()).numpy()
    wrapped = logits(decoded(module, splits.inputs, 4), splits.test.images)
    assert np.abs(wrapped - expected).mean() < 0.02 * expected.std()
    program = export(network, name="p", version="1", params="TOY_N128", classes=splits.classes)
    program.save(tmp_path)
    loaded = Program.load(tmp_path)
    assert loaded.digest == program.digest
    plain = simulate.plain(loaded, splits.test.images) * program.output.scale
    network.noise = None
    rounded = logits(network, splits.test.images)
    assert np.abs(plain - rounded).mean() < 0.1 * rounded.std()
    assert np.corrcoef(rounded.ravel(), expected.ravel())[0, 1] > 0.95  # weights are rounded, nothing is trained
    (encrypted,) = verification.encrypted_logits(loaded, splits.test.images[:1], threads=1)
    assert np.abs(encrypted - plain[0]).max() < 0.5 * plain.std()


def test_images_normalized_as_the_module_expects_may_be_padded() -> None:
    torch.manual_seed(0)
    pixels = RNG.integers(0, 256, (60, 1, 6, 6), dtype=np.uint8)
    module = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(108, 2)).eval()
    encoding = fit_encoding(pixels, origin=(0.48,), pixels=True)
    inputs = Inputs(encoding=encoding, mean=(0.48,), std=(0.25,))
    network = before_rounding(module, inputs.raw_of(inputs.bytes_of(pixels)), inputs=inputs, levels=255).network
    with torch.no_grad():
        expected = module(torch.tensor((pixels / 255 - 0.48) / 0.25).float()).numpy()
    found = logits(network, inputs.bytes_of(pixels))
    assert np.abs(found - expected).mean() < 0.03 * expected.std()
    assert encoding.integers(pixels, 255).min() == encoding.lowest[0]


def images(folder: Path, size: int = 5) -> None:
    for name, value in (("cat", 30), ("dog", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            array: NDArray[np.uint8] = np.full((size, size, 3), value + number, dtype=np.uint8)
            Image.fromarray(array).save(folder / name / f"{number}.png")


def test_a_folder_of_images_by_class(tmp_path: Path) -> None:
    images(tmp_path / "train")
    images(tmp_path / "test")
    splits = Splits.load(str(tmp_path))
    assert splits.classes == ("cat", "dog")
    assert splits.train.images.shape == (17, 3, 5, 5)
    assert len(splits.test.labels) == 20
    assert ((splits.train.images[:, 0, 0, 0] > 100) == (splits.train.labels == 1)).all()
    assert splits.inputs == Inputs()
    Image.fromarray(np.zeros((4, 5), dtype=np.uint8)).save(tmp_path / "test" / "dog" / "x.png")
    with pytest.raises(UnreadableDataError, match=r"x.png has 5x4 pixels, the first image 5x5"):
        Splits.load(str(tmp_path))


def test_images_are_read_as_clients_read_them(tmp_path: Path) -> None:
    """Transparent parts are on paper, a turned photograph is upright, sixteen bits are scaled: a network sees what it will be sent."""
    image_of: dict[str, Image.Image] = {
        "ink": Image.fromarray(
            np.array([[[0, 0, 0, 0], [0, 0, 0, 255]], [[0, 0, 0, 51], [0, 0, 0, 0]]], dtype=np.uint8)
        ),
        "deep": Image.fromarray(np.array([[0, 65535], [32896, 257]], dtype=np.uint16)),
        "gray": Image.fromarray(np.array([[9, 8], [7, 6]], dtype=np.uint8)),
    }
    for name, image in image_of.items():
        for label in ("a", "b"):
            (tmp_path / name / label).mkdir(parents=True)
            image.save(tmp_path / name / label / "x.png")
    turned = Image.Exif()
    turned[0x0112] = 3
    (tmp_path / "turned" / "a").mkdir(parents=True)
    (tmp_path / "turned" / "b").mkdir()
    half = Image.fromarray(np.repeat(np.array([[0], [255]], dtype=np.uint8), 8, axis=0).repeat(8, axis=1))
    half.save(tmp_path / "turned" / "a" / "x.jpg", exif=turned)
    half.save(tmp_path / "turned" / "b" / "x.jpg")
    for name in (*image_of, "turned"):
        values = own_data.read(tmp_path / name).train.values
        files = sorted((tmp_path / name).glob("*/x.*"))
        assert np.array_equal(values, image_files.read(files, values.shape[1:]))
    ink, deep, gray, half_turned = (own_data.read(tmp_path / name).train.values for name in (*image_of, "turned"))
    assert ink[0, 0].tolist() == [[255, 0], [204, 255]]
    assert deep[0].tolist() == [[[0, 255], [128, 1]]] and gray[0].tolist() == [[[9, 8], [7, 6]]]
    assert np.array_equal(half_turned[0, 0], half_turned[1, 0, ::-1, ::-1]) and half_turned[0, 0, 0, 0] > 200


def test_classes_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    """So that names given for them, and outputs of the module, are for the right ones."""
    table = tmp_path / "t.csv"
    kinds = ["10", "5", "020"]
    table.write_text("a,kind\n" + "".join(f"{number},{kinds[number % 3]}\n" for number in range(30)))
    raw = own_data.read(table, "kind")
    assert raw.classes == ("5", "10", "020")
    assert raw.train.labels.tolist() == [(1, 0, 2)[number % 3] for number in range(30)]
    named = Splits.load(str(table), reading=Reading(target="kind", classes=("five", "ten", "twenty")))
    assert (
        named.classes[named.train.labels[0]]
        == {10: "ten", 5: "five", 20: "twenty"}[
            int(kinds[round(float(named.inputs.raw_of(named.train.images)[0, 0])) % 3])
        ]
    )


def test_samples_that_clients_refuse_are_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(60, 2)), rng.normal(size=(20, 2))
    test[:, 0] = np.linspace(-1, 1, 20)
    test[[3, 7], 1] = 50.0
    arrays: dict[str, Any] = {
        "train_x": train,
        "train_y": np.arange(60) % 2,
        "test_x": test,
        "test_y": np.arange(20) % 2,
    }
    np.savez(tmp_path / "far.npz", **arrays)
    splits = Splits.load(str(tmp_path / "far.npz"))
    assert splits.refused == 2
    assert sets.card_of(splits)["test_samples_refused"] == 2
    encoding = splits.inputs.encoding
    assert encoding is not None
    refused = 0
    for sample in test:
        try:
            encoding.integers(sample[None], splits.inputs.levels)
        except OutOfLevelsError:
            refused += 1
    assert refused == splits.refused
    test[4, 1] = np.nan
    np.savez(tmp_path / "far.npz", **arrays)
    with pytest.raises(UnreadableDataError, match=r"value \[1\] of a sample is no finite number"):
        Splits.load(str(tmp_path / "far.npz"))


def test_the_card_of_german_credit_says_how_many_clients_refuse() -> None:
    card = cards.read(cards.ZOO / "german-credit")
    assert card["test_samples_refused"] == sets.of_card(card).refused == 1


def test_calibration_samples_come_from_all_over() -> None:
    labels = np.repeat(np.arange(4), 25)
    split = Split(images=np.zeros((100, 1), dtype=np.uint8), labels=labels)
    assert set(split.spread(10).labels) == {0, 1, 2, 3}
    assert split.spread(100).labels.tolist() == split.spread(500).labels.tolist() == labels.tolist()


def test_arrays_and_torch_data_sets(tmp_path: Path) -> None:
    values, labels = RNG.normal(size=(40, 3, 7)), RNG.integers(0, 2, 40)
    np.savez(tmp_path / "a.npz", x=values, y=np.array(["no", "yes"])[labels])
    of_file = own_data.read(tmp_path / "a.npz")
    assert of_file.classes == ("no", "yes")
    assert np.array_equal(of_file.train.labels, labels)
    pairs = TensorDataset(torch.tensor(values), torch.tensor(labels))
    for source in (pairs, DataLoader(pairs, batch_size=7)):
        raw = own_data.of_samples(source, classes=("no", "yes"))
        assert np.allclose(raw.train.values, values)
        assert np.array_equal(raw.train.labels, labels)
    splits = Splits.of(own_data.of_samples(pairs), name="pairs")
    assert splits.train.images.shape == (29, 3, 7)
    sequences = np.array([b"ACGT", b"NTTA"])
    np.savez(tmp_path / "s.npz", sequences=sequences, labels=[0, 1], classes=["EI", "N"])
    one_hot = own_data.read(tmp_path / "s.npz").train.values
    assert one_hot[0].tolist() == np.eye(4).tolist()
    assert one_hot[1, :, 0].tolist() == [0, 0, 0, 0]


def test_a_card_says_how_the_data_were_read(patients: Path) -> None:
    splits = Splits.load(str(patients), reading=Reading(target="ill", standardize=True))
    again = sets.of_card(sets.card_of(splits))
    assert again.inputs == splits.inputs
    assert np.array_equal(again.test.images, splits.test.images)


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("a,b\n1,2\n", None, "has the columns a, b; say which"),
        ("a,b\n1,x\n,y\n", "b", "line 3: no value for a"),
        ("a,b\n1,x\nnan,y\n", "b", "line 3: a is nan"),
        ("a,b\n" + "".join(f"w{i},x\n" for i in range(40)), "b", "40 different words"),
        ("a,b\n", "b", "no rows"),
        ("a,b,a\n1,x,2\n", "b", "two columns 'a'"),
        ("a,b\n1,1\n2,01\n3,2\n", "b", "b has classes that are one number"),
    ],
)
def test_tables_that_cannot_be_used_say_where(tmp_path: Path, text: str, target: str | None, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UnreadableDataError, match=message):
        own_data.read(tmp_path / "t.csv", target)


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table whose target is a number."""
    path = tmp_path_factory.mktemp("houses") / "houses.csv"
    rng = np.random.default_rng(0)
    rows = ["area,rooms,price"]
    for _ in range(300):
        area, rooms = rng.uniform(40, 200), rng.integers(1, 7)
        rows.append(f"{area:.1f},{rooms},{2.5 * area + 12 * rooms + abs(area - 120) + rng.normal(0, 5):.2f}")
    path.write_text("\n".join(rows))
    return path


def test_numbers_are_predicted(houses: Path, tmp_path: Path) -> None:
    """The target is a number by its fractions; training takes squared errors, and the card says what is explained."""
    splits = Splits.load(str(houses), reading=Reading(target="price", standardize=True))
    assert splits.classes == ("price",)
    assert splits.train.labels.dtype == np.float64
    torch.manual_seed(0)
    last = nn.Linear(8, 1)
    module = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), last)
    baseline = decoded(module, splits.inputs, 2)
    phase = Phase(epochs=40, learning_rate=0.03, distortion=0.0, batch=32)
    with torch.no_grad():
        last.bias.fill_(float(splits.train.labels.mean()))
        last.weight.mul_(100)
    fit(baseline, phase, splits.train, splits.validation, checkpoint=tmp_path / "float.pt", seed=0)
    assert accuracy(baseline, splits.train) > 0.8
    data = splits.inputs.raw_of(splits.train.images)
    network = convert(module.eval(), data, params="TOY_N128", inputs=splits.inputs)
    noisy = Phase(epochs=3, learning_rate=1e-3, distortion=0.0, batch=32, frozen=0.3, distilled=0.5)
    fine_tune(network, splits.train, splits.validation, checkpoint=tmp_path / "noisy.pt", phase=noisy, teacher=baseline)
    program = export(network, name="p", version="1", params="TOY_N128", classes=splits.classes)
    found = cards.measure(program, baseline, [splits.test])
    assert isinstance(found, cards.Explained)
    assert found.r2_float > 0.8
    assert found.r2_simulated > found.r2_float - 0.1
    assert found.error_simulated == pytest.approx(
        float(np.std(splits.test.labels)) * (1 - found.r2_simulated) ** 0.5, rel=1e-6
    )


def test_a_target_is_a_class_or_a_number_as_it_looks_or_is_told(houses: Path, tmp_path: Path) -> None:
    assert len(own_data.read(houses, "rooms").classes) == 6
    assert own_data.read(houses, "rooms", regression=True).classes == ("rooms",)
    assert len(own_data.read(houses, "price", regression=False).classes) > 200
    words = tmp_path / "w.csv"
    words.write_text("a,b\n1,x\n2,y\n")
    with pytest.raises(UnreadableDataError, match="b has values that are no numbers"):
        own_data.read(words, "b", regression=True)
    arrays = tmp_path / "n.npz"
    np.savez(arrays, x=np.zeros((4, 2)), y=np.array([0.5, 1.5, 2.5, 3.0]))
    assert own_data.read(arrays).train.labels.tolist() == [0.5, 1.5, 2.5, 3.0]
    samples = own_data.of_samples([(np.zeros(2), 0.5), (np.ones(2), 1.25)])
    assert samples.train.labels.tolist() == [0.5, 1.25]


def test_every_sample_is_tested_in_one_fold(patients: Path) -> None:
    raw = own_data.read(patients, "ill")
    parts = [raw.fold(number, 4) for number in range(4)]
    tested = np.concatenate([part.test.values for part in parts if part.test is not None])
    assert sorted(map(tuple, tested)) == sorted(map(tuple, raw.train.values))
    assert all(part.test is not None and len(part.train.labels) + len(part.test.labels) == 300 for part in parts)


def test_folds_are_added_to_the_card(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "small.npz", features=rng.normal(size=(60, 5)), labels=rng.integers(0, 2, 60))
    recipe = RECIPES["breast-cancer"]
    assert isinstance(recipe, Recipe)
    short = Phase(epochs=1, learning_rate=1e-3, distortion=0.0, batch=16)
    recipe = replace(
        recipe,
        dataset=str(tmp_path / "small.npz"),
        input_shape=(5,),
        reading=Reading(standardize=True),
        blocks=(DenseSpec(units=4),),
        float_phase=short,
        conversion=Conversion(phases={"noisy": short}, params="TOY_N128"),
    )
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / cards.CARD_FILE).write_text('{"name": "small"}')
    card = folds.measure(recipe, 3, work=tmp_path / "work", folder=tmp_path / "zoo", show=lambda *_: None)
    assert card == cards.read(tmp_path / "zoo")
    assert card["name"] == "small"
    assert card["folds"]["count"] == 3
    assert card["folds"]["accuracy_simulated"]["mean"] == pytest.approx(
        np.mean(card["folds"]["accuracy_simulated"]["each"])
    )


def test_the_command_takes_limits_and_kinds_of_targets(patients: Path, tmp_path: Path) -> None:
    source = "from torch import nn\ndef net():\n    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))\n"
    (tmp_path / "net.py").write_text(source)
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    torch.save(module.state_dict(), tmp_path / "net.pt")
    command = [
        "convert",
        f"{tmp_path / 'net.py'}:net",
        "--weights",
        str(tmp_path / "net.pt"),
        "--dataset",
        str(patients),
    ]
    command += ["--target", "ill", "--name", "net", "--params", "TOY_N128", "--output", str(tmp_path)]
    limits = ["--levels", "15", "--max-seconds", "100", "--max-drop", "-500"]
    assert isinstance(CliRunner().invoke(app, [*command, *limits]).exception, OverBudgetError)
    found = CliRunner().invoke(app, [*command, "--regression"]).exception
    assert isinstance(found, UnreadableDataError)
    assert "ill has values that are no numbers" in str(found)


def test_series_with_lengths_are_padded_in_front_and_have_few_steps(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    series = rng.normal(size=(40, 2, 6))
    lengths = rng.integers(2, 7, 40)
    path = tmp_path / "series.npz"
    np.savez(path, train_series=series, train_lengths=lengths, train_labels=np.arange(40) % 2)
    splits = Splits.load(str(path), reading=Reading(levels=31))
    assert splits.train.images.shape[1:] == (3, 6) and splits.train.images.max() == 31
    encoding = splits.inputs.encoding
    assert encoding is not None and splits.inputs.levels == 31 and splits.inputs.sequences
    runs = splits.inputs.raw_of(splits.train.images)[:, 2]
    assert set(np.unique(runs)) == {0.0, 1.0} and (np.diff(runs, axis=1) >= 0).all() and (runs[:, -1] == 1).all()
    np.savez(path, series=series, lengths=np.full(40, 7), labels=np.arange(40) % 2)
    with pytest.raises(UnreadableDataError, match="a length from 1 to 6"):
        Splits.load(str(path))


def test_padding_has_a_name_and_a_place(tmp_path: Path) -> None:
    series = np.random.default_rng(0).uniform(36, 41, size=(40, 1, 3))
    labels, path = np.arange(40) % 2, tmp_path / "series.npz"
    np.savez(path, series=series, lengths=np.full(40, 3), labels=labels, names=["temperature"])
    inputs = Splits.load(str(path)).inputs
    assert inputs.encoding is not None and inputs.encoding.names == ("temperature", "presence")
    inputs.encoding.integers(
        padded([np.zeros((1, 1))], 3), inputs.levels
    )  # no series of these is short, but a client's may be
    np.savez(
        path,
        train_series=series,
        train_lengths=np.full(40, 3),
        train_labels=labels,
        test_series=series,
        test_labels=labels,
    )
    with pytest.raises(UnreadableDataError, match="lengths of some"):
        Splits.load(str(path))
    np.savez(path, series=series, labels=labels)
    assert not Splits.load(str(path)).inputs.sequences


def test_pixels_may_have_few_steps() -> None:
    inputs = Inputs(levels=15)
    x = torch.tensor([[0, 8, 9, 255]]).float() / 255
    assert inputs.integers(x).tolist() == [[0.0, 0.0, 1.0, 15.0]]
    assert inputs.scale(1)[0].item() == pytest.approx(1 / 15)


def test_classes_that_data_give_as_numbers_may_be_named(patients: Path) -> None:
    named = Splits.load(str(patients), reading=Reading(target="ill", classes=("well", "ill")))
    assert named.classes == ("well", "ill")
    assert sets.of_card(json.loads(json.dumps(sets.card_of(named)))).classes == ("well", "ill")
    with pytest.raises(UnreadableDataError, match=r"2 classes, .*; give as many names, not 3"):
        Splits.load(str(patients), reading=Reading(target="ill", classes=("a", "b", "c")))


@pytest.mark.slow  # calibrates whole networks
@pytest.mark.filterwarnings("ignore")  # torch's exporters warn about each other
@pytest.mark.parametrize("kind", ["folder", "onnx"])
def test_the_command_converts_folders_of_images_and_onnx_files(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(75, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    if kind == "folder":
        data, source, options = tmp_path / "data", f"{tmp_path / 'net.py'}:net", ["--weights", str(tmp_path / "net.pt")]
        for name, low in (("dark", 0), ("light", 120)):
            (data / name).mkdir(parents=True)
            for number in range(90):
                pixels = np.random.default_rng(number).integers(low, low + 120, (5, 5, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(data / name / f"{number}.png")
        layers = "nn.Flatten(), nn.Linear(75, 6), nn.ReLU(), nn.Linear(6, 2)"
        (tmp_path / "net.py").write_text(f"from torch import nn\ndef net():\n    return nn.Sequential({layers})\n")
        torch.save(module.state_dict(), tmp_path / "net.pt")
    else:
        data, source, options = tmp_path / "data.npz", str(tmp_path / "net.onnx"), ["--class-names", "dark,light"]
        images = np.random.default_rng(0).integers(0, 256, (180, 3, 5, 5), dtype=np.uint8)
        np.savez(data, images=images, labels=np.arange(180) % 2)
        torch.onnx.export(
            module,
            (torch.zeros(2, 3, 5, 5),),
            source,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("n")},),
            verbose=False,
        )
    command = ["convert", source, *options, "--dataset", str(data), "--name", "net", "--epochs", "0"]
    done = CliRunner().invoke(app, [*command, "--params", "TOY_N128", "--output", str(tmp_path / "zoo")])
    assert done.exit_code == 0, done.exception
    program, card = Program.load(tmp_path / "zoo" / "net"), cards.read(tmp_path / "zoo" / "net")
    assert program.output.classes == ("dark", "light")
    assert program.input.shape == (3, 5, 5) and program.lookups == 6
    assert card["made_by"].startswith(f"ciphershift convert {source}")
    test = sets.of_card(card).test
    found = simulate.plain(program, test.images).argmax(1) == logits(module, test.images).argmax(1)
    assert found.mean() > 0.8
