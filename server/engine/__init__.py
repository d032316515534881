"""Evaluation: workers that know ciphertexts and keys, and nothing of HTTP."""

from importlib.util import find_spec

from ciphershift.errors import ConfigurationError
from ciphershift.server.engine.base import Engine
from ciphershift.server.engine.local import LocalEngine
from ciphershift.server.settings import Settings


def make_engine(settings: Settings) -> Engine | None:
    """Returns the engine of the settings; None if other processes evaluate the jobs."""
    match settings.engine_url.scheme:
        case "local":
            return LocalEngine(settings)
        case "torch":
            if find_spec("torch") is None:
                raise ConfigurationError(
                    f"engine {settings.engine} needs torch, which is not installed: pip install 'ciphershift[gpu]'"
                )
            return LocalEngine(settings)
        case "ray":
            from ciphershift.server.engine.ray import RayEngine

            return RayEngine(settings)
        case "queue":
            return None
