"""Data by name or path, as training takes them: bytes, what they stand for, and training, validation and test samples."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import UnreadableDataError
from ciphershift.models.compiler.inputs import Inputs, fit_encoding
from ciphershift.models.compiler.scales import PIXEL_LEVELS
from ciphershift.models.training import data, own_data
from ciphershift.models.training.data import Split
from ciphershift.models.training.own_data import Labeled, RawData

VALIDATION_IMAGES = 5000
"""Of a public set of images, taken from the end of the training set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How data are read.

    Attributes:
        target: column of a CSV that is to be predicted.
        standardize: the module expects each feature less its mean, divided by its deviation, both over the training samples.
        mean: of the normalization that the module expects, for each feature or channel, in units of the raw values (pixels: 0 to 1).
        std: its deviation.
        names: of the features, where the data have none.
        regression: whether the target is a number; None: as it looks (models.training.own_data.read).
        classes: names of the classes, in the order of their numbers, where the data have none.
        levels: steps of a pixel or a feature (Inputs.levels).
    """

    target: str | None = None
    standardize: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    regression: bool | None = None
    levels: int = PIXEL_LEVELS


@dataclass(frozen=True, kw_only=True, slots=True)
class Splits:
    """Training, validation and test samples as bytes (Inputs.bytes_of), and what these stand for.

    ``validation`` is None if all training images are trained on; ``reading``: how the data called ``name`` were read; ``refused``: test
    samples with a value outside its feature's range over the training samples: clients refuse them, here they count, moved to its end.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split | None
    test: Split
    refused: int = 0
    inputs: Inputs = field(default_factory=Inputs)
    reading: Reading = field(default_factory=Reading)

    @classmethod
    def load(cls, name: str, *, everything: bool = False, reading: Reading | None = None) -> "Splits":
        """Loads a public set by its name, or a user's own data by their path.

        Args:
            name: one of models.training.data.CLASSES, or a path for models.training.own_data.read.
            everything: no sample is kept out of training, for when nothing is left to choose.
            reading: how.

        Raises:
            UnreadableDataError: the data cannot be had, or cannot be read so.
        """
        reading = Reading() if reading is None else reading
        return cls.of(raw_data(name, reading), name=name, everything=everything, reading=reading)

    @classmethod
    def of(cls, raw: RawData, *, name: str, everything: bool = False, reading: Reading | None = None) -> "Splits":
        """The same of data in memory. Raises UnreadableDataError."""
        reading, whole = Reading() if reading is None else reading, raw.divided()
        assert whole.validation is not None and whole.test is not None, "divided data have all parts"
        for part in (whole.train, whole.validation, whole.test):
            if part.values.dtype.kind == "f" and not np.isfinite(part.values).all():
                place = np.argwhere(~np.isfinite(part.values))[0]
                raise UnreadableDataError(
                    f"{name}: value {list(map(int, place[1:]))} of a sample is no finite number; fill it in, or leave the sample out"
                )
        inputs = _inputs(whole, reading)
        if reading.classes and len(reading.classes) != len(whole.classes):
            raise UnreadableDataError(
                f"{name} has {len(whole.classes)} classes, {', '.join(whole.classes)}; give as many names, not {len(reading.classes)}"
            )

        def split(*parts: Labeled) -> Split:
            values = np.concatenate([part.values for part in parts]) if len(parts) > 1 else parts[0].values
            return Split(images=inputs.bytes_of(values), labels=np.concatenate([part.labels for part in parts]))

        return cls(
            name=name,
            classes=reading.classes or whole.classes,
            train=split(whole.train, whole.validation) if everything else split(whole.train),
            validation=None if everything else split(whole.validation),
            test=split(whole.test),
            refused=inputs.refused(whole.test.values),
            inputs=inputs,
            reading=reading,
        )


def raw_data(name: str, reading: Reading) -> RawData:
    """What ``Splits.load`` reads, with the same errors: data without a test part have none yet."""
    if name in data.CLASSES:
        return _public(name)
    return own_data.read(data.path_of(name), reading.target, regression=reading.regression)


def of_card(card: Mapping[str, Any]) -> Splits:
    """The data that a network of the zoo was made from, as its card says. Raises UnreadableDataError."""
    members: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in card.get("reading", {}).items()
    }
    return Splits.load(card["dataset"], reading=Reading(**members))


def card_of(splits: Splits) -> dict[str, Any]:
    """What ``of_card`` needs, and how many test samples clients would refuse, if any: members of a card."""
    reading = {} if splits.reading == Reading() else {"reading": asdict(splits.reading)}
    refused = {"test_samples_refused": splits.refused} if splits.refused else {}
    return {"dataset": splits.name, **reading, **refused}


def _public(name: str) -> RawData:
    dataset = data.load(name)
    train, count = dataset.train, len(dataset.train.labels) - VALIDATION_IMAGES
    parts = [train.part(0, count), train.part(count, len(train.labels)), dataset.test]
    first, second, third = (Labeled(values=part.images, labels=part.labels) for part in parts)
    return RawData(train=first, validation=second, test=third, classes=dataset.classes, pixels=True)


def _inputs(raw: RawData, reading: Reading) -> Inputs:
    values, features = raw.train.values, raw.train.values.shape[1]
    mean, std = reading.mean, reading.std
    if reading.standardize:
        axes = (0, *range(2, values.ndim))
        whole: NDArray[np.float64] = values.astype(np.float64) / (255 if raw.pixels and values.dtype == np.uint8 else 1)
        mean = tuple(map(float, whole.mean(axis=axes)))
        std = tuple(float(deviation) or 1.0 for deviation in whole.std(axis=axes))
    if mean or std:
        if not len(mean) == len(std) == features or min(std) <= 0:
            raise UnreadableDataError(
                f"the normalization has {len(mean)} means and {len(std)} deviations for {features} features or channels; "
                "give one of each, deviations above zero"
            )
    elif raw.pixels:
        return Inputs(levels=reading.levels)
    fitted = np.concatenate([values, np.zeros_like(values[:1])]) if raw.sequences else values  # a padding has its zeros
    encoding = fit_encoding(
        fitted, origin=mean, names=raw.names or reading.names, pixels=raw.pixels, levels=reading.levels
    )
    return Inputs(encoding=encoding, mean=mean, std=std, levels=reading.levels, sequences=raw.sequences)
