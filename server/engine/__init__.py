"""Evaluation: workers that know ciphertexts and keys, and nothing of HTTP."""

from ciphershift.server.engine.base import Engine
from ciphershift.server.engine.local import LocalEngine
from ciphershift.server.settings import Settings


def make_engine(settings: Settings) -> Engine | None:
    """Returns the engine of the settings; None if other processes evaluate the jobs."""
    match settings.engine_url.scheme:
        case "local":
            return LocalEngine(settings)
        case "ray":
            from ciphershift.server.engine.ray import RayEngine

            return RayEngine(settings)
        case "queue":
            return None
