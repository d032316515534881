"""Many tenants at once, in small; `ciphershift bench service` is the long version."""

from pathlib import Path

import numpy as np
import pytest

from ciphershift.benchmarks.service import fairness, load
from ciphershift.client import AsyncClient
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import Program


def images(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)


@pytest.mark.slow
def test_no_request_of_many_tenants_is_lost_or_crossed(zoo: Path) -> None:
    result = load.send_from_tenants(zoo, "tiny", images=images(40), tenants=4, engine="local://?workers=2&threads=1")
    assert result["answered"] == 40
    assert result["lost"] == result["crossed"] == 0
    assert result["errors"] == {}
    assert result["rss_ratio"] < 1.25  # one mapping of the allocator is much for so small a server
    assert 0 < result["p50_s"] <= result["p99_s"]


def test_answers_that_are_crossed_or_lost_are_counted(
    zoo: Path, tiny_program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three requests get the answer to another image: of the twelve, the one whose logits are farthest from their own."""
    predict, sent = AsyncClient.predict, images(12)
    plain = simulate.plain(tiny_program, sent).astype(np.float64)
    farthest = np.linalg.norm(plain[:, None] - plain, axis=2).argmax(axis=1)
    asked = []

    async def crossed(self: AsyncClient, given: np.ndarray) -> np.ndarray:
        asked.append(given)
        if len(asked) > 1 + 12 and len(asked) % 4 == 0:  # after the warm-up and the client alone
            own = next(number for number, image in enumerate(sent) if np.array_equal(image, given[0]))
            given = sent[farthest[own]][None]
        return await predict(self, given)

    monkeypatch.setattr(AsyncClient, "predict", crossed)
    result = load.send_from_tenants(zoo, "tiny", images=sent, tenants=1, in_flight=1)
    assert result["lost"] == 0
    assert result["crossed"] == 3


@pytest.mark.slow
def test_a_single_job_does_not_wait_for_a_crowd(zoo: Path) -> None:
    result = fairness.delay_single_jobs(
        zoo, "tiny", image=images(1)[0], waiting=60, engine="local://?workers=1&threads=1"
    )
    assert result["singles"] == fairness.SINGLE
    assert result["most_before"] <= fairness.BOUND
