"""A user's own data: a folder of images by class, an .npz, a CSV with a target column, or a torch Dataset."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from ciphershift.errors import CiphershiftError, UnreadableDataError
from ciphershift.models.training.metrics import Targets
from ciphershift.protocol.image_files import opened
from ciphershift.protocol.sequences import padded

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"}
HELD_OUT = 0.15
"""Share of the samples that becomes the test set, and of the rest that becomes the validation set, where the data name none."""
MAX_CATEGORIES = 30
"""Of a column of words; each becomes a feature of its own, 0 or 1."""
SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Labeled:
    """``values`` [count, features, ...] as clients will send them, and ``labels`` [count]: classes, or numbers of a regression."""

    values: NDArray[Any]
    labels: Targets

    def take(self, places: NDArray[np.int64]) -> "Labeled":
        """The samples at these places."""
        return Labeled(values=self.values[places], labels=self.labels[places])


@dataclass(frozen=True, kw_only=True, slots=True)
class RawData:
    """Values with their classes, or with numbers to be predicted; ``classes`` then has the name of these.

    Attributes:
        train: to learn from; ``validation`` to choose by; ``test`` to be looked at once.
        names: of the features; () where they have none.
        pixels: bytes from 0 to 255 stand for values from 0 to 1.
        sequences: values are padded (protocol.sequences).
    """

    train: Labeled
    validation: Labeled | None
    test: Labeled | None
    classes: tuple[str, ...]
    names: tuple[str, ...] = ()
    pixels: bool = False
    sequences: bool = False

    def divided(self) -> "RawData":
        """With validation and test samples, drawn from the training samples by a fixed seed where there are none."""
        train, test, validation = self.train, self.test, self.validation
        if test is None:
            train, test = _divided(train)
        if validation is None:
            train, validation = _divided(train)
        return replace(self, train=train, validation=validation, test=test)

    def fold(self, number: int, count: int) -> "RawData":
        """All samples anew: of ``count`` parts, drawn by a fixed seed, this one to test on, the others to learn from."""
        parts = [part for part in (self.train, self.validation, self.test) if part is not None]
        whole = Labeled(
            values=np.concatenate([part.values for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
        )
        order = np.random.default_rng(SEED).permutation(len(whole.labels))
        tested = np.arange(len(order)) % count == number
        return replace(self, train=whole.take(order[~tested]), validation=None, test=whole.take(order[tested]))


def _divided(data: Labeled) -> tuple[Labeled, Labeled]:
    order = np.random.default_rng(SEED).permutation(len(data.labels))
    kept = len(order) - max(1, round(HELD_OUT * len(order)))
    return data.take(order[:kept]), data.take(order[kept:])


def read(path: Path, target: str | None = None, *, regression: bool | None = None) -> RawData:
    """Reads a folder, an .npz or a .csv.

    Args:
        path: a folder holds one folder of images for each class, or ``train``, ``test`` and perhaps ``val`` with such folders.
        target: name of the column of a CSV that is to be predicted.
        regression: whether the target is a number rather than a class; None: it is where it has fractions, or more than MAX_CATEGORIES
            different numbers.

    Raises:
        UnreadableDataError: names the file, the line or the array that cannot be used.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise UnreadableDataError(f"there is neither a file nor a folder {path}")
    if path.suffix == ".npz":
        return _arrays(path, regression)
    if path.suffix == ".csv":
        return _table(path, target, regression)
    raise UnreadableDataError(f"{path} is neither a folder of images nor an .npz nor a .csv")


Samples = Iterable[Any] | Dataset[Any] | DataLoader[Any]


def of_samples(train: Samples, test: Samples | None = None, classes: tuple[str, ...] = ()) -> RawData:
    """Of a torch Dataset or DataLoader, or anything that gives pairs of values and labels.

    Args:
        train: one sample at a time, or batches as a DataLoader gives them.
        test: the same, to be looked at once.
        classes: names; by default the numbers of the labels, or ``classes`` of a data set of torchvision.

    Raises:
        UnreadableDataError: what it gives are no pairs, or values of different shapes.
    """
    named = tuple(map(str, classes or getattr(train, "classes", ())))
    samples, tests = _collected(train), None if test is None else _collected(test)
    pixels = samples.values.dtype == np.uint8
    if samples.labels.dtype.kind == "f":
        return RawData(train=samples, validation=None, test=tests, classes=named or ("target",), pixels=pixels)
    count = int(max(part.labels.max() for part in (samples, tests) if part is not None)) + 1
    names = named or tuple(map(str, range(count)))
    if len(names) < count:
        raise UnreadableDataError(f"labels go up to {count - 1}, but there are {len(names)} class names")
    return RawData(train=samples, validation=None, test=tests, classes=names, pixels=pixels)


def _collected(samples: Samples) -> Labeled:
    values, labels = [], []
    batched = isinstance(samples, DataLoader)
    count = len(samples) if isinstance(samples, Sized) else None
    for number, sample in enumerate(samples):  # type: ignore[arg-type]  # a map-style Dataset is indexed until it ends
        if count is not None and number >= count:  # a map-style Dataset has no end of its own
            break
        try:
            value, label = sample
        except (TypeError, ValueError) as error:
            raise UnreadableDataError(f"sample {number} is no pair of values and label") from error
        values.append(np.asarray(value) if batched else np.asarray(value)[None])
        labels.append(np.asarray(label).reshape(-1))
    if len({value.shape[1:] for value in values}) != 1:
        raise UnreadableDataError("samples have different shapes, or there are none; give all one shape")
    found = np.concatenate(labels)
    targets: Targets = found.astype(np.float64) if found.dtype.kind == "f" else found.astype(np.int64)
    return Labeled(values=np.concatenate(values), labels=targets)


def _folder(path: Path) -> RawData:
    parts = {name: path / name for name in ("train", "val", "test") if (path / name).is_dir()}
    base = parts.get("train", path)
    classes = tuple(sorted(folder.name for folder in base.iterdir() if folder.is_dir()))
    if len(classes) < 2:
        raise UnreadableDataError(f"{base} holds {len(classes)} folders; give one folder of images for each class")
    held = {name: _images(folder, classes) for name, folder in parts.items()}
    train = held.get("train") or _images(path, classes)
    return RawData(train=train, validation=held.get("val"), test=held.get("test"), classes=classes, pixels=True)


def _images(folder: Path, classes: tuple[str, ...]) -> Labeled:
    files = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((folder / name).glob("*"))
        if file.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise UnreadableDataError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))})")
    mode, size, values = "", (0, 0), []
    for file, _ in files:
        try:
            image = opened(file.read_bytes(), str(file))
        except (CiphershiftError, OSError) as error:
            raise UnreadableDataError(str(error)) from error
        if not mode:
            mode, size = image.mode, image.size
        if image.size != size:
            raise UnreadableDataError(
                f"{file} has {image.size[0]}x{image.size[1]} pixels, the first image {size[0]}x{size[1]}; bring all to one size"
            )
        pixels = np.asarray(image.convert(mode))
        values.append(pixels[None] if mode == "L" else pixels.transpose(2, 0, 1))
    return Labeled(values=np.stack(values), labels=np.array([label for _, label in files], dtype=np.int64))


VALUES, LABELS = ("images", "features", "sequences", "series", "x", "X", "data"), ("labels", "y", "target", "targets")
PRESENCE = "presence"
"""Name of the feature that padding adds, where features have names."""
Part = tuple[NDArray[Any], NDArray[Any], bool]


def _arrays(path: Path, regression: bool | None) -> RawData:
    with np.load(path, allow_pickle=False) as file:
        try:
            arrays = dict(file)
        except ValueError as error:
            raise UnreadableDataError(f"{path} holds pickled objects, which are not read: save plain arrays") from error
    parts = {prefix: _part(path, arrays, f"{prefix}_" if prefix else "") for prefix in ("train", "val", "test", "")}
    train = parts["train"] or parts[""]
    if train is None:
        raise UnreadableDataError(
            f"{path} has the arrays {', '.join(sorted(arrays))}; name them {' or '.join(VALUES)}, and {' or '.join(LABELS)}, "
            "or train_images, train_labels, test_images and so on"
        )
    whole = np.concatenate([part[1] for part in parts.values() if part is not None])
    classes, labels_of = _targets(path, whole, tuple(map(str, arrays.get("classes", ()))), "target", regression)
    names = tuple(map(str, arrays["names"])) if "names" in arrays else ()
    sequences = {part[2] for part in parts.values() if part is not None}
    if len(sequences) > 1:
        raise UnreadableDataError(
            f"{path} has lengths of some of its series; give train_lengths, test_lengths and so on, or none"
        )
    if True in sequences and len(names) == train[0].shape[1] - 1:
        names = (*names, PRESENCE)

    def labeled(part: Part | None) -> Labeled | None:
        return None if part is None else Labeled(values=part[0], labels=labels_of(part[1]))

    given = labeled(train)
    assert given is not None
    return RawData(
        train=given,
        validation=labeled(parts["val"]),
        test=labeled(parts["test"]),
        classes=classes,
        names=names,
        pixels=given.values.dtype == np.uint8,
        sequences=True in sequences,
    )


def _part(path: Path, arrays: dict[str, NDArray[Any]], prefix: str) -> Part | None:
    """Values with the channels on the first axis, labels [count], and whether they are series with lengths, which are padded."""
    values = next((arrays[prefix + name] for name in VALUES if prefix + name in arrays), None)
    labels = next((arrays[prefix + name] for name in LABELS if prefix + name in arrays), None)
    if values is None or labels is None:
        return None
    labels = labels.reshape(-1)
    if len(values) != len(labels):
        raise UnreadableDataError(f"{path} has {len(values)} samples and {len(labels)} labels ({prefix or 'all'})")
    lengths = arrays.get(f"{prefix}lengths") if values.ndim == 3 else None
    if lengths is not None:
        if lengths.shape != (len(values),) or not len(lengths) or lengths.min() < 1 or lengths.max() > values.shape[2]:
            raise UnreadableDataError(
                f"{path}: {prefix}lengths must hold a length from 1 to {values.shape[2]} for each of the {len(values)} series"
            )
        pieces = [series[:, :own] for series, own in zip(values, lengths, strict=True)]
        values = padded(pieces, values.shape[2])
    if values.dtype.kind == "S":
        values = _letters(values)
    elif values.ndim == 3 and values.dtype == np.uint8:
        values = values[:, None]
    elif values.ndim == 4 and values.shape[3] in (1, 3) and values.shape[1] not in (1, 3):
        values = values.transpose(0, 3, 1, 2)
    return values, labels, lengths is not None


def _letters(words: NDArray[Any]) -> NDArray[np.float64]:
    """Sequences of A, C, G and T [count] as 0 and 1, [count, 4, length]; any other letter is none of the four."""
    codes = words.view(np.uint8).reshape(len(words), 1, -1)
    return np.asarray(codes == np.frombuffer(b"ACGT", dtype=np.uint8).reshape(1, -1, 1), dtype=np.float64)


def _table(path: Path, target: str | None, regression: bool | None) -> RawData:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    if not rows:
        raise UnreadableDataError(f"{path} has no rows below its header")
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise UnreadableDataError(f"{path} has two columns {twice[0]!r}; give each a name of its own")
    if target is None or target not in header:
        raise UnreadableDataError(f"{path} has the columns {', '.join(header)}; say which is to be predicted: --target")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header) or any(not cell.strip() for cell in row):
            column = next(
                (name for name, cell in zip(header, row, strict=False) if not cell.strip()), "the last columns"
            )
            raise UnreadableDataError(f"{path}, line {number}: no value for {column}; fill it in, or leave the row out")
    cells = np.array([row[header.index(target)] for row in rows])
    try:
        found = cells.astype(np.float64)  # classes, too, are in the order of their numbers
    except ValueError:
        found = cells  # words: they are classes, and refused where numbers are wanted
    classes, labels_of = _targets(path, found, (), target, regression)
    labels = labels_of(found)
    if labels.dtype.kind == "i":
        if len(np.unique(cells)) != len(classes):
            raise UnreadableDataError(
                f"{path}: {target} has classes that are one number, as 1 and 01: write each class in one way"
            )
        classes = tuple(map(str, cells[np.unique(labels, return_index=True)[1]]))  # as the file writes them
    names: list[str] = []
    columns: list[NDArray[np.float64]] = []
    for place, name in enumerate(header):
        if name != target:
            for own, values in _column(path, name, [row[place] for row in rows]):
                names.append(own)
                columns.append(values)
    train = Labeled(values=np.stack(columns, axis=1), labels=labels)
    return RawData(train=train, validation=None, test=None, classes=classes, names=tuple(names))


def _is_measured(numbers: NDArray[np.float64]) -> bool:
    """Whether numbers are quantities rather than classes."""
    return bool((numbers != np.rint(numbers)).any()) or len(np.unique(numbers)) > MAX_CATEGORIES


def _targets(
    path: Path, found: NDArray[Any], classes: tuple[str, ...], name: str, regression: bool | None
) -> tuple[tuple[str, ...], Callable[[NDArray[Any]], Targets]]:
    """Names of the classes, or of the number that is predicted; and what makes labels of what a file holds."""
    numeric = found.dtype.kind in "iuf"
    if regression is None:
        regression = numeric and not classes and _is_measured(found.astype(np.float64))
    if regression:
        if not numeric or not np.isfinite(found).all():
            raise UnreadableDataError(
                f"{path}: {name} has values that are no numbers; fill them in, or predict classes"
            )
        return (name,), lambda labels: labels.astype(np.float64)
    kinds = np.unique(found)
    if classes:
        if kinds.dtype.kind not in "iu" or kinds.min() < 0 or kinds.max() >= len(classes):
            raise UnreadableDataError(
                f"{path} has {len(classes)} classes; labels must be numbers from 0 to {len(classes) - 1}"
            )
        kinds = np.arange(len(classes))
    return classes or tuple(map(str, kinds)), lambda labels: np.searchsorted(kinds, labels).astype(np.int64)


def _column(path: Path, name: str, cells: list[str]) -> list[tuple[str, NDArray[np.float64]]]:
    """A column of numbers as one feature, one of words as a feature for each word."""
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError:
        words = sorted(set(cells))
        if len(words) > MAX_CATEGORIES:
            raise UnreadableDataError(
                f"{path}: column {name} has {len(words)} different words, more than {MAX_CATEGORIES}; leave it out, or make it a number"
            ) from None
        return [(f"{name}={word}", np.array([float(cell == word) for cell in cells])) for word in words]
    if not np.isfinite(values).all():
        line = 2 + int(np.argmin(np.isfinite(values)))
        raise UnreadableDataError(f"{path}, line {line}: {name} is {cells[line - 2]}; fill it in, or leave the row out")
    return [(name, values)]
