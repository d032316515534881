"""FastAPI dependencies: the service behind the application, the caller with its scopes, and what a path names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, cast

from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ciphershift.errors import UnknownModelError
from ciphershift.server.repository import Model
from ciphershift.server.service import Service
from ciphershift.server.store.database import Job
from ciphershift.server.store.tenants import Caller, Scope


def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


ServiceDep = Annotated[Service, Depends(_service)]


def _caller(
    request: Request,
    service: ServiceDep,
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
) -> Caller:
    caller = service.caller(request.headers.get("Authorization"))
    service.limits.take(caller.tenant_id, caller.requests_per_second or service.settings.requests_per_second)
    request.state.tenant = caller.name
    return caller


def _may(scope: Scope) -> Callable[[Caller], Caller]:
    def check(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
        caller.require(scope)
        return caller

    return check


# The caller, whose API key has the scope.
InferCaller = Annotated[Caller, Depends(_may(Scope.INFER))]
KeysCaller = Annotated[Caller, Depends(_may(Scope.KEYS))]
AdminCaller = Annotated[Caller, Depends(_may(Scope.ADMIN))]


ModelName = Annotated[str, Path(pattern=r"^[!-.0-~]{1,128}$")]


def _model(request: Request, service: ServiceDep, _: InferCaller, name: ModelName) -> Model:
    model = service.repository[name]
    version = request.path_params.get("version", model.program.version)
    if version != model.program.version:
        raise UnknownModelError(f"model {name} is served in version {model.program.version}, not {version[:64]}")
    return model


ModelDep = Annotated[Model, Depends(_model)]
KeyId = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the bundle's payload, in hex")]


def _job(service: ServiceDep, caller: InferCaller, job_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]) -> Job:
    return service.jobs.get(caller.tenant_id, job_id)


JobDep = Annotated[Job, Depends(_job)]


async def _stream(service: ServiceDep, caller: InferCaller) -> AsyncIterator[None]:
    with service.limits.stream(caller.tenant_id, service.settings.streams_per_tenant):
        yield


StreamSlot = Annotated[None, Depends(_stream)]
