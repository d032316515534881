"""An entry of the zoo: a Program, its float baseline and a card with the figures measured on the test images."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ciphershift.errors import UnreadableDataError
from ciphershift.he_layers import simulate
from ciphershift.he_layers.analysis import noise_budget, state_errors, windows
from ciphershift.he_layers.crypto import noise
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.layers import Conv2d
from ciphershift.he_layers.program import Program
from ciphershift.models.compiler.inputs import Decoded
from ciphershift.models.nn.views import BothViews
from ciphershift.models.progress import Show, Step
from ciphershift.models.training import metrics
from ciphershift.models.training.behind import behind
from ciphershift.models.training.data import Split
from ciphershift.models.training.loop import logits

ZOO = Path(__file__).resolve().parents[1] / "zoo"
WINDOW_IMAGES = 500
PART = 500
"""Images that are measured between two steps that are shown; whole batches of the simulation, so that its draws stay the same."""
FIGURES = (
    ("accuracy_float", "accuracy_quantised", "accuracy_simulated"),
    ("r2_float", "r2_quantized", "r2_simulated"),
)
"""Members of a card, of classes or of numbers: of the float network, the Program without noise, and with it."""
FLOAT_FILE, CARD_FILE = "float.safetensors", "card.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracies:
    """Shares of images classified right: by the float baseline, the Program without noise, the Program with predicted noise.

    ``agreement_simulated`` is the share of images that the Program classifies alike with noise and without. ``auc`` and ``f1``: see
    models.training.metrics.
    """

    accuracy_float: float
    accuracy_quantised: float
    accuracy_simulated: float
    agreement_simulated: float
    auc_float: float
    auc_simulated: float
    f1_float: float
    f1_simulated: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """Of numbers that are predicted: R² of the float baseline, of the Program without noise, and with predicted noise.

    ``error_simulated`` is the root of the mean squared error of the last, in units of the numbers; ``error_float`` of the first.
    """

    r2_float: float
    r2_quantized: float
    r2_simulated: float
    error_float: float
    error_simulated: float


def measure(program: Program, baseline: nn.Module, parts: Iterable[Split], *, seed: int = 0) -> Accuracies | Explained:
    """All figures over all parts together; ``seed`` is that of the simulated noise."""
    params, rng = parameter_sets.get(program.params), np.random.default_rng(seed)
    rows: list[tuple[NDArray[np.floating], ...]] = []
    labels = []
    secret = program.behind_stem
    for part in parts:
        images = behind(program.stem, part).images if program.stem else part.images
        rows.append(
            (
                logits(baseline, part.images),
                simulate.plain(secret, images) * program.output.scales,
                simulate.run(secret, params, images, rng),
            )
        )
        labels.append(part.labels)
    clear, plain, noisy = (np.concatenate(answers) for answers in zip(*rows, strict=True))
    right: NDArray[Any] = np.concatenate(labels)
    if right.dtype.kind == "f":
        clear_r2, plain_r2, noisy_r2 = (metrics.r2(answers[:, 0], right) for answers in (clear, plain, noisy))
        errors = [float(np.sqrt(((answers[:, 0] - right) ** 2).mean())) for answers in (clear, noisy)]
        return Explained(
            r2_float=clear_r2,
            r2_quantized=plain_r2,
            r2_simulated=noisy_r2,
            error_float=errors[0],
            error_simulated=errors[1],
        )
    return Accuracies(
        accuracy_float=float((clear.argmax(1) == right).mean()),
        accuracy_quantised=float((plain.argmax(1) == right).mean()),
        accuracy_simulated=float((noisy.argmax(1) == right).mean()),
        agreement_simulated=float((noisy.argmax(1) == plain.argmax(1)).mean()),
        auc_float=metrics.auc(clear, right),
        auc_simulated=metrics.auc(noisy, right),
        f1_float=metrics.f1(clear.argmax(1), right),
        f1_simulated=metrics.f1(noisy.argmax(1), right),
    )


def load_baseline(module: nn.Module, folder: Path) -> nn.Module:
    """The float module, given one of its topology, with the weights that lie beside a Program."""
    module.load_state_dict(load_file(folder / FLOAT_FILE))
    return module.eval()


def as_held_against(baseline: nn.Module, training: Mapping[str, Any]) -> nn.Module:
    """The baseline in as many views as the Program of an entry has whose card says this of its training."""
    return BothViews(baseline) if training.get("views", 1) > 1 else baseline


def write(
    folder: Path,
    program: Program,
    baseline: nn.Module,
    *,
    source_of_data: dict[str, Any],
    module_source: str,
    training: dict[str, Any],
    made_by: str,
    validation: Split | None,
    test: Split,
    show: Show,
) -> dict[str, Any]:
    """Writes program, baseline and card into ``folder``; returns the card.

    The baseline is rounded to half precision, in place, where that can hold it: it is measured as it is stored.

    Args:
        source_of_data: members of the card that models.training.sets.of_card reads.
        module_source: where the float module comes from: a recipe's name, or path/to/file.py:factory.
        training: everything that was chosen.
        made_by: the command that makes the same again.
        validation: images that choices were made on; None if they were trained on afterwards.
        test: images that are looked at here for the first time.
        show: see models.progress.
    """
    (folder / CARD_FILE).unlink(missing_ok=True)  # its figures are of another network
    program.save(folder)
    own = baseline.module if isinstance(baseline, Decoded) else baseline
    stored = {name: _halved(value).contiguous() for name, value in own.state_dict().items()}
    save_file(stored, folder / FLOAT_FILE)
    own.load_state_dict(stored)
    viewed = as_held_against(baseline, training)
    params = parameter_sets.get(program.params)
    watched = windows.measure(program, params, test.images[:WINDOW_IMAGES], np.random.default_rng(0))
    card: dict[str, Any] = {
        "name": program.name,
        "version": program.version,
        "digest": program.digest,
        **source_of_data,
        "module": module_source,
        "topology": topology(program),
        **({"public": program.stem.to_spec()} if program.stem else {}),
        "lookups": program.lookups,
        "weights": sum(
            layer.weight.size for layer in program.layers if hasattr(layer, "weight") and layer.shares is None
        ),
        "params": params.name,
        "params_id": params.id,
        "profile": program.profile,
        "lookup_error_4bit": noise.lookup_error(params),
        "log2_failure_per_image": noise_budget.log2_failure(noise_budget.of_program(program, params)),
        **asdict(measure(program, viewed, _shown(test, "test images", show))),
        "accuracy_images": f"the {len(test.labels)} test images",
        **_validated(program, viewed, validation, show),
        **_recurrent(program, params, test),
        "outside_window": {window.layer: window.outside for window in watched},
        "outside_window_images": f"the first {WINDOW_IMAGES} test images",
        "training": training,
        "made_by": made_by,
        "date": datetime.now(UTC).date().isoformat(),
    }
    (folder / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


def topology(program: Program) -> list[dict[str, Any]]:
    """Layers with what they give and take; without those that only bring the terms of a sum to one scale."""
    return [
        {"layer": stage.layer.kind, "output": stage.output_shape, "lookups": stage.lookups}
        for stage in program.stages
        if not (isinstance(stage.layer, Conv2d) and stage.layer.weight.shape == (stage.layer.groups, 1, 1, 1))
    ]


def _halved(values: Tensor) -> Tensor:
    """A copy in half precision, or as it is if some values are too great for it, such as variances of raw features, or are integers."""
    half = values.half()
    return half if values.is_floating_point() and half.isfinite().all() else values.clone()


def _recurrent(program: Program, params: ParameterSet, test: Split) -> dict[str, Any]:
    """Certificates of recurrent layers, and how far noise moves states (he_layers.analysis.state_errors); None: no bound.

    Lengths are in levels; if there are ``weights``, of states times these.
    """
    errors = state_errors.measure(program, params, test.images[:PART], np.random.default_rng(0))
    both = zip(program.recurrent, errors, strict=True)
    found = [
        asdict(certificate) | asdict(error) | {"error_bound": certificate.error_bound} for certificate, error in both
    ]
    finite = [
        {key: None if value == float("inf") else value for key, value in members.items() if value != ()}
        for members in found
    ]
    return {"recurrent": finite} if finite else {}


def _validated(program: Program, baseline: nn.Module, validation: Split | None, show: Show) -> dict[str, Any]:
    if validation is None:
        return {"validation": None, "validation_images": "none: all training images were trained on"}
    return {
        "validation": asdict(measure(program, baseline, _shown(validation, "validation images", show))),
        "validation_images": f"the last {len(validation.labels)} training images, not trained on",
    }


def _shown(split: Split, stage: str, show: Show) -> Iterator[Split]:
    done = 0
    for part in split.parts(PART):
        yield part
        done += len(part.labels)
        show(stage, Step(done=done, total=len(split.labels)))


def read(folder: Path) -> dict[str, Any]:
    """The card in ``folder``. Raises UnreadableDataError if there is none."""
    if not (folder / CARD_FILE).is_file():
        raise UnreadableDataError(f"{folder} has no {CARD_FILE}, which says what data the network was made from")
    card: dict[str, Any] = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    return card
