"""The documents' blocks run as they stand, one after the other."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ciphershift.errors import UnreadableDataError
from ciphershift.models.training import data
from tests.support.documents import DOCUMENTS, ROOT, Reader, blocks, name_of

RUN = [name_of(document) for document in DOCUMENTS if any(block.is_run for block in blocks(document))]
OWN_NETWORK = "docs/tutorials/own-network.md"
TUTORIALS = tuple(
    f"docs/tutorials/{name}.md"
    for name in ("your-table", "own-network", "deploying", "five-minutes", "what-the-server-sees")
)
SLOW = dict.fromkeys((*TUTORIALS, "docs/networks.md", "docs/operations.md"), pytest.mark.slow)
NEEDS = {
    OWN_NETWORK: "xrays",
    "docs/tutorials/choosing-parameters.md": "mnist",
    "docs/tutorials/deploying.md": "database",
}


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    reader = Reader(tmp_path)
    yield reader
    reader.close()


@pytest.fixture
def mnist() -> None:
    """The data set, and as many threads as the other tests leave."""
    try:
        data.load("mnist")
    except UnreadableDataError as error:
        pytest.skip(f"no MNIST here: {error}")
    torch.set_num_threads(1)


@pytest.fixture
def xrays(tmp_path: Path) -> None:
    """The file that the tutorial downloads, and as many threads as the other tests leave."""
    found = data.path_of("medmnist/pneumoniamnist.npz")
    if not found.exists():
        pytest.skip("no PneumoniaMNIST here")
    (tmp_path / "pneumoniamnist.npz").symlink_to(found.resolve())
    torch.set_num_threads(1)


@pytest.fixture
def database(reader: Reader, postgres: Callable[[], str]) -> None:
    """A PostgreSQL as the environment's database."""
    os.environ["CIPHERSHIFT_DATABASE"] = postgres()


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in RUN])
def test_the_blocks_of_a_document_run(name: str, reader: Reader, request: pytest.FixtureRequest) -> None:
    if name in NEEDS:
        request.getfixturevalue(NEEDS[name])
    reader.follow(ROOT / name)
    if name == OWN_NETWORK:
        is_as_good_as_it_says(reader.printed)


def is_as_good_as_it_says(printed: str) -> None:
    """Asserts what the tutorial of one's own network leads its reader to expect."""
    for stage in ("float", "fine-tuned", "test, float", "test, simulated"):
        accuracy, area = map(float, re.search(rf"{stage}: accuracy ([\d.]+), AUC ([\d.]+)", printed).groups())  # type: ignore[union-attr]
        assert accuracy > 0.8
        assert area > 0.9
    encrypted, clear = re.search(r"encrypted: \[(.*?)\] in the clear: \[(.*?)\]", printed).groups()  # type: ignore[union-attr]
    assert sum(a == b for a, b in zip(encrypted.split(), clear.split(), strict=True)) >= 2


def test_a_block_that_fails_or_prints_something_else_is_noticed(reader: Reader, tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    for wrong in (
        "```sh\nfalse\n```\n",
        "```python\nassert 1 > 2\n```\n",
        "```python\nprint(1)\n```\n\n```text\n2\n```\n",
    ):
        document.write_text(wrong)
        with pytest.raises(AssertionError):
            reader.follow(document)
