"""All measurements of the page, in a quick and a full version, and which of them are stored already."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ciphershift.benchmarks.crypto import parameters, primitives
from ciphershift.benchmarks.fhe_benchmarking import driver, harness
from ciphershift.benchmarks.fhe_benchmarking.instance import DEFAULT_MODEL, SIZES
from ciphershift.benchmarks.harness import results
from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.harness.served import served_params
from ciphershift.benchmarks.networks import agreement, cost, estimates, first_stage, growth, throughput
from ciphershift.benchmarks.peers.systems import LOOKUPS, PEERS, PHOTOGRAPHS, WORK, Peer, ours, run_peer
from ciphershift.benchmarks.report.lookups import SETS
from ciphershift.benchmarks.service import engines
from ciphershift.he_layers.analysis import cost as costs
from ciphershift.he_layers.crypto import params, timing
from ciphershift.he_layers.crypto.params import DEFAULT
from ciphershift.he_layers.program import Program
from ciphershift.models.training import data
from ciphershift.models.training.data import Split
from ciphershift.server.settings import Settings, available_cpus

MOST_IMAGES = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How long a run takes.

    Attributes:
        seconds: for the images of one network; as many are taken as the cost model expects to fit.
        longest: predicted seconds of one image above which a network is left out.
        repetitions: of what is repeated.
        quick: whether few things are measured, or all.
    """

    seconds: float
    longest: float
    repetitions: int
    quick: bool


QUICK = Effort(seconds=10, longest=30, repetitions=1, quick=True)
FULL = Effort(seconds=120, longest=300, repetitions=3, quick=False)
NETWORK_OF_PARAMETERS = "mnist-fast"
NETWORK_OF_WORKERS = "mnist-she"
SMALLEST = "mnist-tiny"
DATA_OF_PEERS = "mnist"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A measurement, and the members that identify its stored results.

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
        """Those among stored records, oldest first; a record that a peer could not run does not count."""
        found = results.matching(records, self.benchmark, self.members)
        return [record for record in found if "skipped" not in record]


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """A network of the zoo, with the expected seconds for an image."""

    folder: Path
    program: Program
    dataset: str
    predicted: float

    @property
    def members(self) -> dict[str, object]:
        """Members that identify its measurements."""
        return {"model": self.folder.name, "program": self.program.digest}

    def images(self, seconds: float) -> int:
        """How many fit, at least one."""
        return int(min(max(seconds / self.predicted, 1), MOST_IMAGES))


def networks(models: Path, effort: Effort) -> list[Network]:
    """Those that are cheap enough."""
    found = [_read(path.parent) for path in sorted(models.glob("*/card.json"))]
    return [network for network in found if network.predicted <= effort.longest]


def _read(folder: Path) -> Network:
    program = Program.load(folder)
    parameter_set = served_params(program)
    predicted = costs.predict(program, parameter_set, timing.measure(parameter_set, available_cpus()))
    return Network(folder=folder, program=program, dataset=agreement.read_card(folder)["dataset"], predicted=predicted)


def questions(*, quick: bool) -> list[Question]:
    """All questions, in the order of the page."""
    models, effort = Settings().models, QUICK if quick else FULL
    zoo = networks(models, effort)
    return [
        *(_agreement(network, effort) for network in zoo),
        Question(
            benchmark="primitives",
            about="time of each primitive",
            members={"params_id": params.get(SETS[-1]).id},
            run=lambda: primitives.time_primitives(SETS, threads=tuple(sorted({1, available_cpus()})), batch=256),
        ),
        *systems(quick=quick),
        *(_cost(network, effort.repetitions) for network in zoo),
        *(_cost_by_set(network, effort.repetitions) for network in zoo if network.folder.name == SMALLEST),
        Question(
            benchmark="growth",
            about="time against the number of activations",
            members={"params": DEFAULT},
            run=lambda: growth.time_widths(
                DEFAULT,
                maps=growth.MAPS[:-1] if quick else growth.MAPS,
                threads=available_cpus(),
                repetitions=effort.repetitions,
            ),
        ),
        Question(
            benchmark="throughput",
            about="images a second against the batch",
            members={"model": SMALLEST},
            run=lambda: throughput.time_batches(models, SMALLEST, _digits().images, repetitions=effort.repetitions),
        ),
        *(_parameters(name, 2000 if quick else 10_000) for name in (SMALLEST, NETWORK_OF_PARAMETERS)),
        Question(
            benchmark="estimates",
            about="cost of ImageNet's networks, by the cost model",
            members={"params": DEFAULT},
            run=lambda: estimates.predict_networks(DEFAULT, threads=available_cpus()),
        ),
        Question(
            benchmark="first-stage",
            about="the first stage of AlexNet at 224 x 224",
            members={"params": DEFAULT},
            run=lambda: [first_stage.run_first_stage(DEFAULT, maps=1 if quick else 2, threads=available_cpus())],
        ),
        Question(
            benchmark="engines",
            about="one, two and four Ray workers",
            run=lambda: _engines(SMALLEST if quick else NETWORK_OF_WORKERS, effort.repetitions),
        ),
        *(_yardstick(size) for size in ((0,) if quick else (0, 1))),
    ]


def systems(*, quick: bool) -> list[Question]:
    """Our networks for the peers' data set, and the peers."""
    effort = QUICK if quick else FULL
    digits = [network for network in networks(Settings().models, effort) if network.dataset == DATA_OF_PEERS]
    return [
        *(_ours(network, effort) for network in (*digits, *_same_topology())),
        *(_peer(peer, quick) for peer in (*PEERS, *LOOKUPS)),
    ]


def photographs(*, quick: bool) -> list[Question]:
    """The peers for CIFAR-10."""
    return [_peer(peer, quick) for peer in PHOTOGRAPHS]


def _same_topology() -> list[Network]:
    """Our network of the peers' topology, where it was trained (`ciphershift bench peers` does)."""
    folder = WORK / "zoo"
    return [_read(path.parent) for path in folder.glob("*/card.json")]


@cache
def _digits() -> Split:
    return data.load(DATA_OF_PEERS).test


def _parameters(model: str, images: int) -> Question:
    return Question(
        benchmark="parameters",
        about=f"{model} under other parameter sets",
        members={"model": model},
        run=lambda: parameters.simulate_parameter_sets(model, _digits().part(0, images)),
    )


def _agreement(network: Network, effort: Effort) -> Question:
    images = network.images(effort.seconds)
    return Question(
        benchmark="agreement",
        about=f"{network.folder.name}: {images} images through a server",
        members=network.members,
        run=lambda: [agreement.count_agreement(network.folder.name, images=images, start=0)],
    )


def _cost(network: Network, repetitions: int) -> Question:
    return Question(
        benchmark="cost",
        about=f"{network.folder.name}: seconds by layer",
        members=network.members,
        run=lambda: [cost.compare_with_prediction(network.folder.name, repetitions=repetitions)],
    )


def _cost_by_set(network: Network, repetitions: int) -> Question:
    return Question(
        benchmark="cost_by_set",
        about=f"{network.folder.name} under parameter sets in turns",
        members=network.members | {"params_id": params.get(SETS[-1]).id},
        run=lambda: cost.compare_sets(network.folder.name, SETS, repetitions=repetitions),
    )


def _ours(network: Network, effort: Effort) -> Question:
    return Question(
        benchmark="peers",
        about=f"ciphershift, {network.folder.name}, as the peers are measured",
        members={"peer": "ciphershift", "program": network.program.digest},
        run=lambda: [ours(network.folder, _digits(), count=network.images(effort.seconds / 4))],
    )


def _peer(peer: Peer, quick: bool) -> Question:
    return Question(
        benchmark=peer.benchmark,
        about=peer.system,
        members={"peer": peer.name} if peer.images else {"peer": peer.name, "system": peer.system},
        run=lambda: run_peer(peer, quick=quick),
    )


def _engines(model: str, repetitions: int) -> list[Record]:
    """Empty if Ray, an extra, is not installed."""
    if find_spec("ray") is None:
        return []
    return [engines.compare_engines(Settings().models, model, images=_digits().images[:1], repetitions=repetitions)]


def _yardstick(size: int) -> Question:
    return Question(
        benchmark="yardstick",
        about=f"the neutral yardstick with {driver.IMAGES[size]} images",
        members={"size": SIZES[size], "program": Program.load(Settings().models / DEFAULT_MODEL).digest},
        run=lambda: [yardstick(size)],
    )


def yardstick(size: int, model: str = DEFAULT_MODEL, count: int | None = None) -> Record:
    """Runs the submission's steps in a folder of their own; returns what the harness would write, in an envelope."""
    program = Program.load(Settings().models / model)
    with tempfile.TemporaryDirectory() as folder:
        result = driver.run(Path(folder), size, _digits(), model=model, count=count)
    return envelope("yardstick", params=served_params(program)) | {"program": program.digest} | result


def yardstick_by_harness(checkout: Path, size: int, seed: int, model: str = DEFAULT_MODEL) -> Record:
    """Runs the submission by the suite's harness; returns its report in an envelope."""
    program = Program.load(Settings().models / model)
    report = harness.run(checkout, size, model=model, seed=seed)
    return envelope("yardstick-harness", params=served_params(program)) | {"program": program.digest} | report
