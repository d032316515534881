"""The public names of the client, and that the sync and the async client offer the same."""

import inspect
import re
from typing import Any

import pytest

from ciphershift import client
from ciphershift.client import AsyncClient, AsyncJob, Client, Job


def test_every_public_name_is_there_and_public() -> None:
    for name in client.__all__:
        assert getattr(client, name).__module__.startswith("ciphershift.client")
    exported = {name for name, value in vars(client).items() if inspect.isclass(value)}
    assert exported == set(client.__all__)


def methods(kind: type) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(kind) if not name.startswith("_")}


def plain(text: str | None) -> str:
    """A docstring without what must differ: awaits, and the parentheses and names that come with them."""
    return re.sub(r"\(await ([^)]*\))\)", r"\1", text or "").replace("await ", "").replace("Async", "")


@pytest.mark.parametrize(("sync", "coroutines"), [(Client, AsyncClient), (Job, AsyncJob)])
def test_sync_and_async_have_the_same_methods_and_docstrings(sync: type, coroutines: type) -> None:
    ones, others = methods(sync), methods(coroutines)
    assert list(ones) == list(others)
    for name, one in ones.items():
        other = others[name]
        if isinstance(one, property):
            assert one is other, name
            continue
        assert plain(one.__doc__) == plain(other.__doc__), name
        assert inspect.iscoroutinefunction(other), name
        assert not inspect.iscoroutinefunction(one), name
        assert inspect.signature(one).parameters == inspect.signature(other).parameters, name
