"""What the page needs to know: every question with its measurement, in a short and a full version, and which are answered already."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks import agreement, cost, engines, estimates, first_stage, growth, parameters, results, throughput
from benchmarks.envelope import envelope
from benchmarks.fhe_benchmarking import driver
from benchmarks.fhe_benchmarking.instance import DEFAULT_MODEL, SIZES
from benchmarks.peers import measure as peers
from benchmarks.results import Record
from he_layers.crypto import params
from he_layers.crypto.params import DEFAULT
from he_layers.program import Program
from models import data
from models.data import Split
from server.settings import Settings, available_cpus

QUICK_IMAGES = {"mnist-tiny": 20, "mnist-fast": 10, "mnist-exact": 3}
"""Images of a quick run; networks that are not named get two."""
FULL_IMAGES = {"mnist-tiny": 50, "mnist-fast": 50, "mnist-exact": 10}
"""The same of a full run; networks that are not named get five."""
NETWORK_OF_PARAMETERS = "mnist-fast"
NETWORK_OF_THROUGHPUT = "mnist-tiny"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A measurement, and the members by which its stored answer is known.

    Attributes:
        benchmark: which it belongs to.
        about: in a few words, for progress and for what is missing.
        run: yields the records.
        members: an answer has these.
    """

    benchmark: str
    about: str
    run: Callable[[], Iterable[Record]]
    members: Mapping[str, object] = field(default_factory=dict)

    def answers(self, records: Iterable[Record]) -> list[Record]:
        """Those among stored records, oldest first."""
        return results.matching(records, self.benchmark, self.members)


def networks(models: Path) -> list[Path]:
    """The folders of the zoo's networks for MNIST, the data set that the peers are measured on."""
    return [path.parent for path in sorted(models.glob("*/card.json")) if agreement.data_set(path.parent) == "mnist"]


def questions(*, quick: bool) -> list[Question]:
    """All, in the order in which the page wants them."""
    models = Settings().models
    images, rest = (QUICK_IMAGES, 2) if quick else (FULL_IMAGES, 5)
    return [
        *(_network(folder, images.get(folder.name, rest)) for folder in networks(models)),
        *(_ours(folder, 2 if quick else 5) for folder in (*networks(models), *_same_topology())),
        *(_peer(peer, quick) for peer in peers.PEERS),
        *(_cost(folder, 1 if quick else 3) for folder in networks(models)),
        Question(
            benchmark="growth",
            about="time against the number of activations",
            members={"params": DEFAULT},
            run=lambda: growth.measure(
                DEFAULT,
                maps=growth.MAPS[:-1] if quick else growth.MAPS,
                threads=available_cpus(),
                repetitions=1 if quick else 3,
            ),
        ),
        Question(
            benchmark="throughput",
            about="images a second against the batch",
            members={"model": NETWORK_OF_THROUGHPUT},
            run=lambda: throughput.measure(
                models, NETWORK_OF_THROUGHPUT, _mnist().images, repetitions=1 if quick else 2
            ),
        ),
        *(
            Question(
                benchmark="parameters",
                about=f"{name} under other parameter sets",
                members={"model": name},
                run=partial(_parameters, name, 2000 if quick else 10_000),
            )
            for name in (NETWORK_OF_THROUGHPUT, NETWORK_OF_PARAMETERS)
        ),
        Question(
            benchmark="estimates",
            about="cost of ImageNet's networks, by the cost model",
            members={"params": DEFAULT},
            run=lambda: estimates.measure(DEFAULT, threads=available_cpus()),
        ),
        Question(
            benchmark="first-stage",
            about="the first stage of AlexNet at 224 x 224",
            members={"params": DEFAULT},
            run=lambda: [first_stage.measure(DEFAULT, maps=1 if quick else 2, threads=available_cpus())],
        ),
        Question(
            benchmark="engines",
            about="one and two Ray workers",
            run=lambda: _engines(2 if quick else 8, 1 if quick else 3),
        ),
        *(_yardstick(size) for size in ((0,) if quick else (0, 1))),
    ]


def _same_topology() -> list[Path]:
    """Our network of the peers' topology, where it was trained (`python -m benchmarks peers --train`)."""
    folder = peers.WORK / "zoo" / "tutorial"
    return [folder] if (folder / "card.json").exists() else []


@cache
def _mnist() -> Split:
    return data.load("mnist").test


def _parameters(model: str, images: int) -> Iterator[Record]:
    return parameters.measure(model, _mnist().part(0, images))


def _network(folder: Path, images: int) -> Question:
    return Question(
        benchmark="agreement",
        about=f"{folder.name}: {images} images through a server",
        members={"model": folder.name, "program": Program.load(folder).digest},
        run=lambda: [agreement.measure(folder.name, images=images, start=0)],
    )


def _cost(folder: Path, repetitions: int) -> Question:
    return Question(
        benchmark="cost",
        about=f"{folder.name}: seconds by layer",
        members={"model": folder.name, "program": Program.load(folder).digest},
        run=lambda: [cost.measure(folder.name, repetitions=repetitions)],
    )


def _ours(folder: Path, images: int) -> Question:
    return Question(
        benchmark="peers",
        about=f"ciphershift, {folder.name}, as the peers are measured",
        members={"peer": "ciphershift", "program": Program.load(folder).digest},
        run=lambda: [peers.ours(folder, _mnist(), count=images)],
    )


def _peer(peer: peers.Peer, quick: bool) -> Question:
    return Question(
        benchmark="peers",
        about=peer.system,
        members={"peer": peer.folder},
        run=lambda: peers.measure(peer, quick=quick),
    )


def _engines(images: int, repetitions: int) -> list[Record]:
    """Nothing where Ray, an extra, is not installed."""
    if find_spec("ray") is None:
        return []
    name = NETWORK_OF_THROUGHPUT
    return [engines.measure(Settings().models, name, images=_mnist().images[:images], repetitions=repetitions)]


def _yardstick(size: int) -> Question:
    return Question(
        benchmark="yardstick",
        about=f"the neutral yardstick with {driver.IMAGES[size]} images",
        members={"size": SIZES[size]},
        run=lambda: [yardstick(size)],
    )


def yardstick(size: int, model: str = DEFAULT_MODEL, count: int | None = None) -> Record:
    """Runs the submission's steps in a folder of their own; returns what the harness would write, in an envelope."""
    parameter_set = params.get(Program.load(Settings().models / model).params)
    with tempfile.TemporaryDirectory() as folder:
        result = driver.run(Path(folder), size, _mnist(), model=model, count=count)
    return envelope("yardstick", params=parameter_set) | result
