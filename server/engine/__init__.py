"""Where the work is done: workers that know ciphertexts and keys, and nothing of HTTP."""

from server.engine.engine import Engine
from server.engine.local import LocalEngine
from server.settings import Settings


def make_engine(settings: Settings) -> Engine | None:
    """Returns the engine that the settings ask for; None if jobs are computed by other processes."""
    match settings.engine_url.scheme:
        case "local":
            return LocalEngine(settings)
        case "ray":
            from server.engine.ray import RayEngine  # an extra, which the other engines run without

            return RayEngine(settings)
        case "queue":
            return None
