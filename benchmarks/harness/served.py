"""The parameter set that a server of these settings evaluates a network under."""

from __future__ import annotations

from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.program import Program
from ciphershift.server.repository import params_for
from ciphershift.server.settings import Settings


def served_params(program: Program, engine: str | None = None) -> ParameterSet:
    """Returns the Program's own set, or what CIPHERSHIFT_PARAMETER_SETS puts in its place; ``engine``: the server's, if not the default."""
    settings = Settings(engine=engine) if engine else Settings()
    return params_for(program, settings.stand_ins)
