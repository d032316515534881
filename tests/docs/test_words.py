"""docs/examples/words.py, in small: trained on a text of its own, served, and asked."""

import importlib.util
import logging
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.benchmarks.networks.words import measure
from tests.support.documents import ROOT

VERSE = "she saw the sea and the sea saw her again today . "


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example with few words and small networks."""
    spec = importlib.util.spec_from_file_location("words", ROOT / "docs" / "examples" / "words.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in {"STEPS": 4, "WORDS": 10, "SIZE": 8, "UNITS": 24, "BATCH": 8, "CANDIDATES": 6}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "read", lambda novel: module.tokens(VERSE * 50))
    return module


def test_words_are_those_of_the_text(words: ModuleType) -> None:
    found = words.tokens("\u201cIt\u2019s _so_,\u201d said Anne. 'Well!'")
    assert found == ["it's", "so", "said", "anne", ".", "well", "!"]
    assert words.numbers(["sea", "ship"], ["", "the", "sea"]).tolist() == [2, words.OTHER]


def test_windows_are_followed_by_the_next_word(words: ModuleType) -> None:
    given, following = words.windows(torch.arange(11), stride=3)
    assert given.tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert following[:, -1].tolist() == [4, 7, 10]


def test_the_sampled_loss_leads_to_the_share_of_each_word(words: ModuleType) -> None:
    """Words that follow at random, one half as often as the next: the logarithms of their shares are where the loss has no slope."""
    torch.manual_seed(0)
    text = torch.multinomial(2.0 ** -torch.arange(words.WORDS), 40_000, replacement=True)
    model, loss = words.relu_network(), words.SampledLoss([text])
    with torch.no_grad():
        model.table.zero_()
        model.bias.copy_(loss.share.log())
    for given, following in list(words.batches([text]))[:600]:
        loss(model, given, following).backward()
    slope = model.bias.grad / 600
    assert float(slope.abs().max()) < 0.02
    with torch.no_grad():
        model.bias.zero_()
        model.bias.grad.zero_()
    for given, following in list(words.batches([text]))[:600]:
        loss(model, given, following).backward()
    assert float(model.bias.grad.abs().max()) / 600 > 0.1


@pytest.mark.parametrize("kind", ["relu_network", "lstm"])
def test_the_network_of_all_words_is_that_of_the_last_one(words: ModuleType, tmp_path: Path, kind: str) -> None:
    """Training reads the states of all steps; what is served has the last answer alone, and it is the same."""
    torch.manual_seed(0)
    text = words.numbers(words.tokens(VERSE * 50), ["", *sorted(set(words.tokens(VERSE)))])
    model = getattr(words, kind)()
    words.fit_float(model, [text], epochs=12, dropout=0.0, kept=tmp_path / "float.pt")
    encrypted = words.Encrypted(model, [text], words.FAST)
    encrypted.network.eval().noise = None
    given, _ = words.windows(text[:200], stride=3)
    candidates = torch.arange(words.WORDS)

    def answers(rows: Tensor) -> Tensor:
        return torch.as_tensor(encrypted.answers(rows) @ encrypted.table.T + encrypted.bias)

    of_all = encrypted.logits(given, candidates).view(len(given), words.STEPS, -1)
    assert torch.allclose(of_all[:, -1], answers(given), atol=1e-5)


def test_an_lstm_is_converted_as_it_is(words: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIPHERSHIFT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(words, "UNITS", 8)
    words.train_lstm(tmp_path, str(tmp_path / "other"))
    record = measure(tmp_path / "other", windows=1)
    assert record["perplexity_simulated"] < 4, "the text repeats itself"
    assert record["agree"] == record["encrypted"] == 1
    # Four gates, three products of two look-ups, a tanh; the first step keeps no state.
    assert record["lookups"] == words.UNITS * (11 * words.STEPS - 3)


def test_a_trained_network_is_served_and_asked(
    words: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIPHERSHIFT_HOME", str(tmp_path / "home"))
    words.train(tmp_path)
    record = measure(tmp_path, windows=3)
    assert record["perplexity_simulated"] < 3, "the text repeats itself"
    assert record["agree"] == record["encrypted"] == 3
    assert record["lookups"] == words.STEPS * words.UNITS
    with running_server(models=tmp_path) as server, caplog.at_level(logging.INFO):
        words.ask(tmp_path, server.url, "... she saw the")
    answers = [entry.message.split()[-1] for entry in caplog.records if " %  " in entry.message]
    assert answers[0] == "sea"
    assert np.isclose(
        sum(float(entry.message.split()[0]) for entry in caplog.records if " %  " in entry.message), 100, atol=1
    )
