"""Networks whose inputs are no drawings: a row of a table, a gray photograph, sequences. Under the parameter set of the shipped ones."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from ciphershift.he_layers.layers import Conv2d, Dense, Flatten, Linear, ReLU
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program
from ciphershift.protocol.encoding import Encoding
from ciphershift.protocol.sequences import padded

FIELDS = [("length", 0.0, 50.0), ("width", 0.0, 50.0), ("dose", -1.0, 1.0), ("age", 20.0, 80.0)]
LEVELS = 15
LOW_ROW = [0.0, 3.5, 0.9, 80.0]
SERIES = [
    np.array([[0.9], [30.0]]),
    np.array([[0.9, -0.9], [30.0, 0.0]]),
    np.array([[-0.9, -0.9, 0.9], [1.0, 2.0, 3.0]]),
    np.array([[0.9, 0.9, 0.9, -0.9], [60.0, 2.0, 3.0, 0.0]]),
]
SERIES_CLASSES = [1, 0, 3, 2]
"""Of ``sequences``."""
PARAMS = "FAST_N512_PAIRS"


def save(folder: Path) -> None:
    """Writes all into a folder of models."""
    for program in (table(), scores()):
        _save(program, folder, None, {"name": "row 1", "label": "low", "values": LOW_ROW})
    scan = base64.b64encode(bright_top().tobytes()).decode()
    _save(photograph(), folder, "photograph", {"name": "scan 1", "label": "bright top", "values": scan})
    (whole,) = padded(SERIES[1:2], 4)
    _save(
        sequences(), folder, None, {"name": "two steps", "label": "short falling", "values": whole.reshape(-1).tolist()}
    )


def table() -> Program:
    """Whether the first two of four values are greater than the others: two look-ups."""
    return Program(
        name="table",
        version="1",
        params=PARAMS,
        input=InputSpec(
            shape=(4,),
            levels=LEVELS,
            delta=1 / 256,
            encoding=Encoding(
                origin=tuple(least for _, least, _ in FIELDS),
                step=tuple((most - least) / LEVELS for _, least, most in FIELDS),
                lowest=(0, 0, 0, 0),
                names=tuple(name for name, _, _ in FIELDS),
            ),
        ),
        layers=(
            Linear(name="difference", weight=np.array([[1, 1, -1, -1], [-1, -1, 1, 1]], dtype=np.int8)),
            _relu(channels=2, multiplier=0.5),
            Linear(name="classes", weight=np.array([[-2, 2], [2, -2]], dtype=np.int8)),
        ),
        output=OutputSpec(classes=("low", "high"), scale=1.0),
    )


def scores() -> Program:
    """Whether the first two of the same four values are greater than the others, by weighted sums alone, in refined answers."""
    weight = np.array([[-100, -127, 99, 127], [100, 127, -99, -127]], dtype=np.int16)
    return replace(
        table(),
        name="scores",
        input=replace(table().input, delta=1 / 65536),
        layers=(Dense(name="classes", weight=weight, bias=np.array([7, -7], dtype=np.int32)),),
        output=OutputSpec(classes=("low", "high"), scale=0.01, refinement=64),
    )


def photograph() -> Program:
    """Whether the upper half of 16 x 16 pixels is brighter than the lower one: 16 look-ups."""
    half = np.repeat(np.array([1, -1], dtype=np.int8), 8)
    return Program(
        name="scan",
        version="1",
        params=PARAMS,
        input=InputSpec(shape=(1, 16, 16), levels=15, delta=1 / 1024),
        layers=(
            Conv2d(name="blocks", weight=np.ones((1, 1, 4, 4), dtype=np.int8), stride=(4, 4), padding=(0, 0)),
            _relu(channels=1, multiplier=1 / 16),
            Flatten(name="flatten"),
            Linear(name="halves", weight=np.stack([half, -half])),
        ),
        output=OutputSpec(classes=("bright top", "bright bottom"), scale=1.0),
    )


def sequences() -> Program:
    """Whether a sequence of up to four steps of two features has more than two, and the first feature's sign in the last: four look-ups."""
    weight = np.zeros((2, 3, 4), dtype=np.int8)
    weight[0, 2, [1, 3]] = 2, -1  # of the presence: + from three steps on
    weight[1, 0, 3] = 2
    flat = weight.reshape(2, 12)
    steps = (2 / LEVELS, 60 / LEVELS, 1 / LEVELS)
    return Program(
        name="sequences",
        version="1",
        params=PARAMS,
        input=InputSpec(
            shape=(3, 4),
            levels=LEVELS,
            delta=1 / 256,
            encoding=Encoding(
                origin=(0.0, 0.0, 0.0), step=steps, lowest=(-7, 0, 0), names=("change", "age", "presence")
            ),
            sequences=True,
        ),
        layers=(
            Flatten(name="flatten"),
            Linear(name="signs", weight=np.concatenate([flat, -flat])),
            _relu(channels=4, multiplier=0.5),
            Linear(
                name="classes",
                weight=np.array([[-1, -1, 1, 1], [-1, 1, 1, -1], [1, -1, -1, 1], [1, 1, -1, -1]], dtype=np.int8),
            ),
        ),
        output=OutputSpec(classes=("short falling", "short rising", "long falling", "long rising"), scale=1.0),
    )


def bright_top() -> np.ndarray:
    """A scan of the first class."""
    return np.repeat(np.array([230, 20], dtype=np.uint8), 128)


def _relu(channels: int, multiplier: float) -> ReLU:
    return ReLU(
        name="relu",
        bias=np.zeros(channels, dtype=np.int32),
        multiplier=np.full(channels, multiplier),
        levels=15,
        delta_out=1 / 512,
    )


def _save(program: Program, folder: Path, images: str | None, example: dict[str, object]) -> None:
    program.save(folder / program.name)
    (folder / program.name / "inputs.json").write_text(json.dumps({"images": images, "examples": [example]}))
