"""Encrypted inference of neural networks with exact ReLU and max-pool.

The names below are loaded when they are first used: the client needs the extra ``client``, conversion and training the
extra ``models`` (torch), and a server needs neither.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ciphershift import errors

if TYPE_CHECKING:
    from ciphershift.client import AsyncClient, Client, Keystore
    from ciphershift.he_layers.program import Program
    from ciphershift.models.compiler.convert import convert
    from ciphershift.models.compiler.export import export
    from ciphershift.models.cost_report import check
    from ciphershift.models.training.loop import fine_tune
    from ciphershift.models.verification import verify

__version__ = version("ciphershift")

__all__ = [
    "AsyncClient",
    "Client",
    "Keystore",
    "Program",
    "__version__",
    "check",
    "convert",
    "errors",
    "export",
    "fine_tune",
    "verify",
]

_HOMES = {
    "AsyncClient": "ciphershift.client",
    "Client": "ciphershift.client",
    "Keystore": "ciphershift.client",
    "Program": "ciphershift.he_layers.program",
    "check": "ciphershift.models.cost_report",
    "convert": "ciphershift.models.compiler.convert",
    "export": "ciphershift.models.compiler.export",
    "fine_tune": "ciphershift.models.training.loop",
    "verify": "ciphershift.models.verification",
}


def __getattr__(name: str) -> Any:
    """Loads a public name from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ciphershift' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
