"""Which models an operator has loaded and unloaded: in the database, so that every process of the service follows, also after a restart."""

from __future__ import annotations

import time

from sqlalchemy import select

from ciphershift.errors import CiphershiftError
from ciphershift.server import logs
from ciphershift.server.repository import Model, Repository
from ciphershift.server.store import audit
from ciphershift.server.store.database import Database, ModelState

_MARGIN_SECONDS = 5.0  # difference allowed between the clocks of two machines
_log = logs.get("models")


class ModelStates:
    """The operator's decisions about a repository. Every method blocks for a transaction."""

    def __init__(self, database: Database, repository: Repository) -> None:
        self._database = database
        self._repository = repository
        self._followed = time.time()

    def load(self, name: str, actor: str) -> Model:
        """Loads a model from its folder and serves it; `actor` is for the audit trail. Raises what Repository.load raises."""
        model = self._repository.load(name)
        self._record(name, actor, unloaded=False)
        return model

    def unload(self, name: str, actor: str) -> None:
        """Takes a model out of service; accepted jobs are still evaluated. Raises UnknownModelError."""
        self._repository.unload(name)
        self._record(name, actor, unloaded=True)

    def follow(self) -> None:
        """Loads and unloads the models that other processes loaded and unloaded since the last call."""
        with self._database.reading() as session:
            states = session.scalars(select(ModelState)).all()
        since, self._followed = self._followed, time.time()
        for state in states:
            try:
                if state.unloaded and state.name in self._repository:
                    self._repository.unload(state.name)
                elif not state.unloaded and state.loaded >= since - _MARGIN_SECONDS:
                    self._repository.load(state.name)
            except CiphershiftError as error:
                _log.warning("model_refused", model=state.name, reason=error.message)

    def _record(self, name: str, actor: str, *, unloaded: bool) -> None:
        with self._database.writing() as session:
            audit.record(session, actor, "model.unload" if unloaded else "model.load", name)
            session.merge(ModelState(name=name, unloaded=unloaded, loaded=time.time()))
