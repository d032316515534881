"""The model repository: a folder of Programs, each with its parameter set and its card."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ciphershift.errors import CiphershiftError, InsecureParamsError, ProgramError, UnknownModelError
from ciphershift.he_layers.analysis import noise_budget
from ciphershift.he_layers.crypto import noise
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.crypto.ciphertexts import CkksCiphertext, PackedAnswer, ciphertext_type
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.program import Program
from ciphershift.protocol.schemas import ModelInputs, RecommendedQuota
from ciphershift.server.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A Program with its model card and the parameter set that it is evaluated under: its own or one that stands in for it."""

    program: Program
    params: ParameterSet
    card: Mapping[str, Any]
    inputs: ModelInputs
    log2_failure: float | None
    """In the exact profile, log2 of the probability that any look-up of an image is wrong; None in the fast profile."""
    quota: RecommendedQuota | None = None

    @property
    def image_shape(self) -> str:
        """The sizes of an input with x between them, as requests state it: channels x height x width of an image."""
        return "x".join(str(size) for size in self.program.input.shape)

    @property
    def key_bytes(self) -> int:
        """Exact size of a bundle of evaluation keys in its container."""
        return EvaluationKeys.nbytes(self.params)

    @property
    def pixels(self) -> int:
        """Values of one image."""
        return math.prod(self.program.input.shape)

    @property
    def upload_bytes(self) -> int:
        """Exact size of one encrypted image in its container."""
        return self.ciphertext_type.nbytes(self.params, self.pixels)

    @property
    def ciphertext_type(self) -> type[CkksCiphertext]:
        """What an image is encrypted as."""
        return ciphertext_type(self.program.lookups)

    @property
    def download_bytes(self) -> int:
        """Exact size of one encrypted row of logits in its container."""
        return PackedAnswer.nbytes(self.params, self.program.answer_values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A sub-folder of the repository: its model if it is served, and the reason why not, or why a newer version was refused."""

    model: Model | None
    reason: str


class Repository(Mapping[str, Model]):
    """The models of one folder, by name. A model that is not well formed is not served; the others are not affected."""

    def __init__(self, settings: Settings, check: Callable[[Model], object] = lambda _: None) -> None:
        """Loads and checks every sub-folder that holds a program.json.

        Args:
            settings: of which `models` and what may be served.
            check: called with each model before it is served; an exception refuses the model.
        """
        self._check = check
        self._folder = settings.models
        self._allow_toy_parameters = settings.allow_toy_parameters
        self._stand_ins = settings.stand_ins
        self._entries: dict[str, Entry] = {}
        for name in self._names():
            with suppress(CiphershiftError):
                self.load(name)

    def load(self, name: str) -> Model:
        """Loads a model from its folder. If it is refused, the version that was served before stays in service.

        Raises:
            UnknownModelError: the repository has no folder of this name with a program.json.
            ProgramError: the Program is not well formed, or one of the exact profile is not exact under its parameters.
            ParameterError: its parameter set is unknown or not secure.
        """
        if name not in self._names():
            raise self._unknown(name)
        before = self._entries.get(name, Entry(model=None, reason=""))
        try:
            model = self._read(name)
            self._check(model)
        except CiphershiftError as error:
            self._entries[name] = replace(before, reason=error.message)
            raise
        except Exception as error:  # whatever a folder holds, it must not stop the other models
            reason = f"{self._folder / name} cannot be read ({type(error).__name__}): write it again with ciphershift convert"
            self._entries[name] = replace(before, reason=reason)
            raise ProgramError(reason) from error
        if before.model is None or before.model.program.digest != model.program.digest:
            self._entries[name] = Entry(model=model, reason="")
        return self[name]

    def unload(self, name: str) -> None:
        """Takes a model out of service. Raises UnknownModelError."""
        if name not in self._entries:
            raise self._unknown(name)
        self._entries[name] = Entry(model=None, reason="unloaded")

    @property
    def entries(self) -> dict[str, Entry]:
        """All sub-folders by name, including those that are not served."""
        return {name: self._entries.get(name, Entry(model=None, reason="not loaded")) for name in self._names()}

    def __getitem__(self, name: str) -> Model:
        """Returns a model.

        Raises:
            UnknownModelError: none of this name is served.
        """
        entry = self._entries.get(name)
        if entry is None or entry.model is None:
            raise self._unknown(name)
        return entry.model

    def __contains__(self, name: object) -> bool:
        """Whether a model is served."""
        return name in set(self)

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names of the served models."""
        return (name for name, entry in sorted(self._entries.items()) if entry.model is not None)

    def __len__(self) -> int:
        """Counts the served models."""
        return sum(1 for _ in self)

    @property
    def key_bytes(self) -> dict[str, int]:
        """Exact size of a bundle of evaluation keys, for each params_id in use."""
        return {model.params.id: model.key_bytes for model in self.values()}

    def _names(self) -> list[str]:
        return sorted(path.parent.name for path in self._folder.glob("*/program.json"))

    def _read(self, name: str) -> Model:
        model = _whole(self._folder / name, self._stand_ins)
        if model.program.name != name:
            raise ProgramError(f"folder {name} holds a program named {model.program.name}: rename one of them")
        if model.params.is_toy and not self._allow_toy_parameters:
            raise InsecureParamsError(
                f"{name} uses {model.params.name}, a parameter set for tests that protects nothing"
            )
        return model

    def _unknown(self, name: str) -> UnknownModelError:
        return UnknownModelError(f"no model {name!r} is served; served are: {', '.join(self) or 'none'}")


def params_for(program: Program, stand_ins: Sequence[str]) -> ParameterSet:
    """Returns the set that a Program is evaluated under: the first of the named ones that may stand in for its own, or its own.

    Among these a Program of SHARING_LOOKUPS or more takes one whose look-ups share masks if there is one, a smaller one another.
    """
    own, others = parameter_sets.get(program.params), map(parameter_sets.get, stand_ins)
    may = [other for other in others if noise.may_stand_in(other, own)]
    suited = [other for other in may if (other.bodies > 1) == (program.lookups >= parameter_sets.SHARING_LOOKUPS)]
    return [*suited, *may, own][0]


def _whole(folder: Path, stand_ins: Sequence[str]) -> Model:
    """Reads a folder; again if it was replaced meanwhile, so that all files are of one version."""
    while True:
        before = _identity(folder)
        try:
            model = _load(folder, stand_ins)
        except CiphershiftError:
            if _identity(folder) == before:
                raise
        else:
            if _identity(folder) == before:
                return model


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except FileNotFoundError:  # between the two renames of a replacement
        return None
    return found.st_dev, found.st_ino


def _load(folder: Path, stand_ins: Sequence[str]) -> Model:
    program = Program.load(folder)
    params = params_for(program, stand_ins)
    noise_budget.require_exact(program, params)
    card = _card(folder / "card.json")
    return Model(
        program=program,
        params=params,
        card=card,
        quota=_quota(card.get("recommended_quota"), folder / "card.json"),
        inputs=_inputs(folder / "inputs.json", math.prod(program.sample_shape)),
        log2_failure=noise_budget.log2_failure(noise_budget.of_program(program, params)),
    )


def _card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ProgramError(f"{path} cannot be read: {error}") from error
    if not isinstance(card, dict):
        raise ProgramError(f"{path} holds no JSON object")
    return card


def _quota(given: object, path: Path) -> RecommendedQuota | None:
    try:
        return None if given is None else RecommendedQuota.model_validate(given)
    except ValidationError as error:
        raise ProgramError(
            f"{path}: recommended_quota is no quota: write it with ciphershift bench extraction"
        ) from error


def _inputs(path: Path, values: int) -> ModelInputs:
    try:
        inputs = ModelInputs.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return ModelInputs()
    except (OSError, ValidationError) as error:
        raise ProgramError(f"{path} cannot be read: {error}") from error
    for example in inputs.examples:
        if len(example.values) != values:
            raise ProgramError(
                f"{path}: {example.name} has {len(example.values)} values, the model takes {values}: correct or remove it"
            )
    return inputs
