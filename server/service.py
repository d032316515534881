"""What the routes work with: settings, models, keys and engine of one running service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Path, Request

from server.engine.local import LocalEngine
from server.keys import KeyStore
from server.repository import Model, Repository
from server.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """The parts of one service."""

    settings: Settings
    repository: Repository
    keys: KeyStore
    engine: LocalEngine


def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


def _model(request: Request, name: Annotated[str, Path(max_length=128)]) -> Model:
    return _service(request).repository[name]


ServiceDep = Annotated[Service, Depends(_service)]
ModelDep = Annotated[Model, Depends(_model)]
KeyId = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the bundle's payload, in hex")]
