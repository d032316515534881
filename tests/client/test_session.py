"""A session's first steps, driven by hand: what it takes from a server, and what it does not."""

import httpx
import pytest

from ciphershift import errors
from ciphershift.client import Keystore
from ciphershift.client._session import Session

REQUEST = httpx.Request("GET", "http://server/v2/models/m/profile")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"model": 1}', b"\xff", b"[" * 100_000])
def test_an_unusable_profile_is_malformed(content: bytes) -> None:
    steps = Session("m", Keystore(), allow_toy_parameters=True).profile()
    next(steps)
    with pytest.raises(errors.MalformedError):
        steps.send(httpx.Response(200, content=content, request=REQUEST))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"models": [1]}', b"[" * 100_000])
def test_an_unusable_list_of_models_is_malformed(content: bytes) -> None:
    steps = Session(None, Keystore(), allow_toy_parameters=True).profile()
    next(steps)
    with pytest.raises(errors.MalformedError):
        steps.send(httpx.Response(200, content=content, request=REQUEST))


def test_one_of_several_models_must_be_named() -> None:
    steps = Session(None, Keystore(), allow_toy_parameters=True).profile()
    next(steps)
    with pytest.raises(errors.UnknownModelError, match="a, b"):
        steps.send(httpx.Response(200, content=b'{"models": [{"name": "a"}, {"name": "b"}]}', request=REQUEST))
