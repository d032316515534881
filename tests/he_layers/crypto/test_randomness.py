"""Where randomness comes from: the operating system alone, one stream for each purpose, and never the same after a fork."""

import ast
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ciphershift.he_layers.crypto import ckks, packing, params
from ciphershift.he_layers.crypto.ciphertexts import Binding, LweCiphertextList
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.native import _kernel

ROOT = Path(__file__).resolve().parents[3]
TOY = params.get("TOY_N128")
ZERO_ID = "00" * 32
BINDING = Binding(key_id=ZERO_ID, request=ZERO_ID, program=ZERO_ID)
KEYS = ClientKeys.generate(TOY)
SERVER_KEYS = KEYS.evaluation_keys().expand()


def packed() -> bytes:
    nothing = LweCiphertextList(np.zeros((1, TOY.big_dimension + 1), np.uint32))
    return packing.packing_key_switch(nothing, SERVER_KEYS, BINDING).to_bytes()


DRAWS: dict[str, Callable[[], bytes]] = {
    "secret keys": lambda: ClientKeys.generate(TOY).to_bytes(),
    "CKKS secrets alone": lambda: ClientKeys.generate(TOY).answer_secret.tobytes(),
    "masks": lambda: KEYS.evaluation_keys().mask_seed,
    "ciphertext": lambda: ckks.encrypt(KEYS, ZERO_ID, np.zeros(4)).c1.tobytes(),
    "answer": packed,
}


@pytest.mark.parametrize("name", DRAWS)
def test_two_children_of_a_fork_and_their_parent_draw_differently(name: str) -> None:
    DRAWS[name]()  # whatever state a generator keeps exists before the fork
    drawn = [in_a_child(DRAWS[name]) for _ in range(2)] + [hashlib.sha256(DRAWS[name]()).digest()]
    assert len(set(drawn)) == 3
    assert all(len(digest) == 32 for digest in drawn)


def in_a_child(draw: Callable[[], bytes]) -> bytes:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, hashlib.sha256(draw()).digest())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        return file.read()


def test_every_purpose_has_a_seed_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """One seed for all public masks, one for each key's noise: what is published says nothing of what is not."""
    seeds: dict[str, list[bytes]] = {"mask_seed": [], "noise_seed": []}

    def spied(name: str) -> Callable[..., object]:
        made = getattr(_kernel, name)

        def call(*args: object, **kwargs: object) -> object:
            for kind, kept in seeds.items():
                kept.append(kwargs[kind])  # type: ignore[arg-type]
            return made(*args, **kwargs)

        return call

    for name in ("key_switch_key_bodies", "bootstrapping_key_bodies", "ring_switch_key_bodies", "answer_key_bodies"):
        monkeypatch.setattr(_kernel, name, spied(name))
    keys = ClientKeys.generate(params.get("TOY_N128_SHARED2")).evaluation_keys()
    assert set(seeds["mask_seed"]) == {keys.mask_seed}
    assert len(set(seeds["noise_seed"])) == len(seeds["noise_seed"]) == 6
    assert keys.mask_seed not in seeds["noise_seed"]


def test_a_failing_source_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> bytes:
        raise OSError("no entropy")

    monkeypatch.setattr(os, "urandom", broken)
    for name in ("masks", "secret keys", "answer"):
        with pytest.raises(OSError, match="no entropy"):
            DRAWS[name]()


FORBIDDEN = {"random", "numpy.random", "np.random"}
CPP_FORBIDDEN = (
    "mt19937",
    "default_random_engine",
    "std::rand",
    "srand(",
    " rand(",
    "random_device",
    "<random>",
    "time(",
)


def forbidden_uses(source: str) -> list[str]:
    """Names of non-cryptographic generators that a module imports or reaches."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in FORBIDDEN]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if node.module in FORBIDDEN else []
            found += [f"{node.module}.{a.name}" for a in node.names if f"{node.module}.{a.name}" in FORBIDDEN]
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in FORBIDDEN:
            found.append(ast.unparse(node))
    return found


NO_SECRETS = {"timing.py"}  # times the kernel on arrays that stand for nothing


def crypto_paths() -> list[Path]:
    """All that can touch keys, ciphertexts or plaintexts; simulation and training draw no secret."""
    folders = ["he_layers/crypto", "he_layers/native", "client", "server"]
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if path.name not in NO_SECRETS]
    return [*paths, ROOT / "he_layers" / "evaluate.py"]


def test_no_other_generator_is_used_where_secrets_are() -> None:
    paths = crypto_paths()
    assert len(paths) > 30
    assert not {path.name: uses for path in paths if (uses := forbidden_uses(path.read_text(encoding="utf-8")))}
    sources = [path for path in (ROOT / "he_layers" / "native" / "src").iterdir() if path.suffix in (".hpp", ".cpp")]
    assert len(sources) > 10
    assert not [
        (path.name, word) for path in sources for word in CPP_FORBIDDEN if word in path.read_text(encoding="utf-8")
    ]


@pytest.mark.parametrize(
    "source",
    [
        "import random",
        "from numpy import random",
        "import numpy as np\nx = np.random.default_rng(0)",
        "from random import seed",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert forbidden_uses(source)
