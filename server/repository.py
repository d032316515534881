"""The model repository: a folder of Programs, each with its parameter set and its card."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from he_layers import noise_budget
from he_layers.crypto import params as parameter_sets
from he_layers.crypto.ciphertexts import CkksCiphertext, PackedAnswer
from he_layers.crypto.errors import InsecureParamsError, UnknownModelError
from he_layers.crypto.evaluation_keys import EvaluationKeys
from he_layers.crypto.params import ParameterSet
from he_layers.program import Program


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A Program with its parameter set and its card."""

    program: Program
    params: ParameterSet
    card: Mapping[str, Any]
    log2_failure: float | None
    """In the exact profile, log2 of the probability that any look-up of an image is wrong; None in the fast one."""

    @property
    def image_shape(self) -> str:
        """Channels, height and width as requests write them."""
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
        return CkksCiphertext.nbytes(self.params, self.pixels)

    @property
    def download_bytes(self) -> int:
        """Exact size of one encrypted row of logits in its container."""
        return PackedAnswer.nbytes(self.params, len(self.program.output.classes))


class Repository(Mapping[str, Model]):
    """The models of one folder, by name."""

    def __init__(self, folder: Path, *, allow_toy_parameters: bool = False) -> None:
        """Loads and checks every sub-folder that holds a program.json.

        Raises:
            ProgramError: a Program is not well formed, or one of the exact profile is not exact under its parameters.
            InsecureParamsError: a Program asks for a TOY parameter set, and these are not allowed.
        """
        self._models: dict[str, Model] = {}
        for path in sorted(folder.glob("*/program.json")):
            model = _load(path.parent)
            if model.params.is_toy and not allow_toy_parameters:
                raise InsecureParamsError(f"{model.program.name} uses {model.params.name}, which protects nothing")
            self._models[model.program.name] = model

    def __getitem__(self, name: str) -> Model:
        """Returns a model.

        Raises:
            UnknownModelError: there is none of this name.
        """
        model = self._models.get(name)
        if model is None:
            raise UnknownModelError(f"there is no model {name!r} here; there are: {', '.join(self._models) or 'none'}")
        return model

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names."""
        return iter(self._models)

    def __len__(self) -> int:
        """Counts the models."""
        return len(self._models)

    @property
    def key_bytes(self) -> dict[str, int]:
        """Exact size of a bundle of evaluation keys, for each params_id in use."""
        return {model.params.id: model.key_bytes for model in self._models.values()}


def _load(folder: Path) -> Model:
    program = Program.load(folder)
    params = parameter_sets.get(program.params)
    noise_budget.require_exact(program, params)
    card = folder / "card.json"
    return Model(
        program=program,
        params=params,
        log2_failure=noise_budget.log2_failure(noise_budget.of_program(program, params)),
        card=json.loads(card.read_text()) if card.exists() else {},
    )
