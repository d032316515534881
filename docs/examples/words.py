"""The next word after 25 words, by a recurrent network of 300 units: the words, the states and the answer are encrypted.

Words become vectors on the client, by a table that is public. The network reads 25 vectors and answers with one. The client adds what the
last word says by itself; products with the rows of a second public table are the logits of all words. The tables begin as one (Press and
Wolf 2017, arXiv 1608.05859). Jane Austen's novels are the text: four are learned from, one is chosen by, Persuasion is the test.

``python docs/examples/words.py train FOLDER`` makes ``FOLDER/words-rnn``, which a server takes, and ``FOLDER/table.npz``, and says how well
the network predicts. ``python docs/examples/words.py lstm FOLDER OTHER`` makes ``OTHER/words-lstm`` of the LSTM that was its teacher, with
eleven look-ups for each unit and step, and ``OTHER/table.npz``. ``python docs/examples/words.py ask FOLDER URL "it is a truth"`` asks a
server.
"""

import gzip
import json
import logging
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from ciphershift import Client, convert, export
from ciphershift.models.compiler.inputs import Inputs, fit_encoding
from ciphershift.models.nn.recurrent import LIMIT, Recurrent, Steps
from ciphershift.models.training.data import path_of

log = logging.getLogger("words")
LEARNED = ("emma", "mansfieldpark", "prideprejudice", "sensesensibility")
CHOSEN_BY, TESTED = "northangerabbey", "persuasion"
STEPS, WORDS, SIZE, UNITS = 25, 10_000, 128, 300
OTHER = 0  # number of all words that are not in the table
BATCH, CANDIDATES = 64, 1200


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is chosen for a conversion.

    Attributes:
        samples: windows that it looks at.
        input_levels: greatest integer of an input; ``levels`` that of a state.
        exponents: powers of two that a weight may take.
        max_outside: share of sums that may leave their window.
        params: name of the parameter set.
    """

    samples: int
    input_levels: int
    levels: int
    exponents: int
    max_outside: float
    params: str


FAST = Choice(samples=600, input_levels=15, levels=15, exponents=4, max_outside=1e-2, params="FAST_N512_BLOCK3")
PRECISE = Choice(samples=1200, input_levels=63, levels=95, exponents=3, max_outside=1e-3, params="EXACT_N2048_BLOCK3")
"""Of the LSTM, whose products make more of noise than ReLUs do."""


class Language(nn.Module):
    """A table of words, a recurrent network, what brings its states to the size of a row of the table, and what the word itself adds."""

    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.table, self.bias = nn.Parameter(torch.randn(WORDS, SIZE) * 0.1), nn.Parameter(torch.zeros(WORDS))
        self.recurrent, self.last = recurrent, nn.Linear(UNITS, SIZE)
        self.direct = nn.Parameter(torch.zeros(SIZE, SIZE))
        self.dropout = 0.0

    def forward(self, words: Tensor) -> Tensor:
        """Numbers of words [B, T] -> a vector after each of them, [B, T, SIZE]."""
        vectors = self._dropped(self.table[words], 0.5)
        states = self.recurrent(vectors)
        states = states[0] if isinstance(states, tuple) else states
        return self._dropped(self.last(self._dropped(states, 1.0)) + vectors @ self.direct.T, 0.25)

    def logits(self, words: Tensor, candidates: Tensor) -> Tensor:
        """Of some words to follow each of the given ones, [B * T, candidates]."""
        return self(words).flatten(0, 1) @ self.table[candidates].T + self.bias[candidates]

    def _dropped(self, x: Tensor, share: float) -> Tensor:
        return functional.dropout(x, share * self.dropout, self.training)


class LastState(nn.Module):
    """[B, STEPS, SIZE] -> the state of an LSTM after the last step."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, x: Tensor) -> Tensor:
        """Of each sequence [B, UNITS]."""
        return torch.as_tensor(self.lstm(x)[0][:, -1])


def last_state(recurrent: nn.Module) -> nn.Module:
    """Of the network of ReLUs or the LSTM: reads all steps, gives the last state alone."""
    if isinstance(recurrent, nn.LSTM):
        return LastState(recurrent)
    last = Recurrent(SIZE, UNITS, every=STEPS)
    last.load_state_dict(recurrent.state_dict())
    return nn.Sequential(last, nn.Flatten())


def lstm() -> Language:
    """What the encrypted network is held against: it answers by its states alone."""
    model = Language(nn.LSTM(SIZE, UNITS, batch_first=True))
    model.direct.requires_grad_(False)
    return model


def relu_network() -> Language:
    """A recurrent network with states that forget (models.nn.recurrent), at first each at a rate of its own."""
    recurrent = Recurrent(SIZE, UNITS)
    nn.init.normal_(recurrent.input.weight, std=3 / math.sqrt(SIZE))
    nn.init.constant_(recurrent.input.bias, 0.3)
    with torch.no_grad():
        recurrent.state.weight.copy_(torch.linspace(0, LIMIT, UNITS).diag())
    return Language(recurrent)


def read(novel: str) -> list[str]:
    """Words in lower case, and the marks that end a sentence."""
    path = path_of(f"austen/{novel}.txt.gz")
    if not path.exists():
        sys.exit(
            f"{path} is not there: put Jane Austen's novels into the folder austen of the one that CIPHERSHIFT_DATA names"
        )
    return tokens(gzip.decompress(path.read_bytes()).decode())


def tokens(text: str) -> list[str]:
    """The same of any text."""
    return re.findall(r"[a-z]+(?:'[a-z]+)?|[.!?]", text.lower().replace("\u2019", "'").replace("_", ""))


def numbers(words: list[str], vocabulary: list[str]) -> Tensor:
    """Numbers of words [T]."""
    number = {word: place for place, word in enumerate(vocabulary)}
    return torch.tensor([number.get(word, OTHER) for word in words])


def windows(text: Tensor, stride: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Sequences of 25 words [count, STEPS] and for each word the one that follows it."""
    both = text[first:].unfold(0, STEPS + 1, stride)
    return both[:, :-1], both[:, 1:]


def batches(texts: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """All texts once, cut at other places each time, in any order."""
    first = int(torch.randint(STEPS, ()))
    words, following = (torch.cat(parts) for parts in zip(*(windows(t, STEPS, first) for t in texts), strict=True))
    for chosen in torch.randperm(len(words)).split(BATCH):
        yield words[chosen], following[chosen].flatten()


class SampledLoss:
    """Cross-entropy among the batch's own words and 1200 drawn ones, each logit less the logarithm of its word's chance to be there.

    Importance sampling of Bengio and Senecal (2008): a fifth of the time of all 10 000 logits. With a teacher, half of the loss is the
    cross-entropy to its probabilities of the same words (Hinton et al., arXiv 1503.02531).
    """

    def __init__(self, texts: list[Tensor], teacher: Language | None = None) -> None:
        counts = torch.bincount(torch.cat(texts), minlength=WORDS) + 1.0
        self.share, self.teacher = counts / counts.sum(), teacher

    def __call__(self, model: "Language | Encrypted", words: Tensor, following: Tensor) -> Tensor:
        """Of a model, for words [B, T] and the ones that follow each, [B * T]."""
        drawn = torch.multinomial(self.share, CANDIDATES)
        candidates = torch.cat([following, drawn]).unique()
        offset = torch.log(-torch.expm1(-(CANDIDATES + len(following)) * self.share[candidates]))
        logits = model.logits(words, candidates) - offset
        loss = functional.cross_entropy(logits, torch.searchsorted(candidates, following))
        if self.teacher is None:
            return loss
        with torch.no_grad():
            wanted = (self.teacher.logits(words, candidates) - offset).softmax(1)
        return (loss + functional.cross_entropy(logits, wanted)) / 2


def fit(
    parameters: list[nn.Parameter],
    texts: list[Tensor],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    settle: Callable[[], None],
    *,
    epochs: int,
    rate: float,
) -> None:
    """AdamW with a short rise of its rate and a cosine; ``settle`` is called every 20 steps and at the end."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99))
    steps = epochs * sum(len(text) // STEPS for text in texts) // BATCH
    done = 0
    for epoch in range(epochs):
        for words, following in track(list(batches(texts)), f"epoch {epoch + 1} of {epochs}"):
            if done % 20 == 0:
                settle()
            rise, fall = min(1.0, 20 * done / steps), (1 + math.cos(math.pi * min(1.0, done / steps))) / 2
            optimizer.param_groups[0]["lr"] = rate * rise * fall
            optimizer.zero_grad()
            loss_of(words, following).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            done += 1
    settle()


def fit_float(
    model: Language, texts: list[Tensor], *, epochs: int, dropout: float, kept: Path, teacher: Language | None = None
) -> None:
    """Trains all of a model, or takes its weights from the file where they were kept."""
    if not kept.exists():
        sampled = SampledLoss(texts, teacher)
        model.train().dropout = dropout

        def settle() -> None:
            if isinstance(model.recurrent, Recurrent):
                model.recurrent.contract()

        fit(list(model.parameters()), texts, partial(sampled, model), settle, epochs=epochs, rate=3e-3)
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), kept)
    model.load_state_dict(torch.load(kept, weights_only=True))
    model.eval()


class Encrypted:
    """The recurrent network, converted, between two tables: a rounded one before it, which stands still, and one behind it.

    Attributes:
        params: name of the parameter set.
        inputs: what the rounded vectors stand for.
        rows: the rounded vectors, bytes [WORDS, SIZE]; ``vectors``: the numbers.
        network: reads them [B, SIZE, STEPS] / 255 and answers with a vector after the last word, without what this word adds itself.
        table: whose products with the whole vector are logits, with ``bias``.
        direct: what a word adds itself.
    """

    def __init__(self, model: Language, texts: list[Tensor], choice: Choice) -> None:
        self.params = choice.params
        parts = (model.table, model.bias, model.direct)
        self.table, self.bias, self.direct = (nn.Parameter(part.detach().clone()) for part in parts)
        low, high = (torch.quantile(self.table.detach(), share, dim=0) for share in (0.002, 0.998))
        clamped = self.table.detach().clamp(low, high)
        self.inputs = Inputs(encoding=fit_encoding(clamped, levels=choice.input_levels), levels=choice.input_levels)
        self.rows = torch.tensor(self.inputs.bytes_of(clamped.numpy()))
        self.vectors = torch.tensor(self.inputs.raw_of(self.rows.numpy()))
        module = nn.Sequential(Steps(), last_state(model.recurrent), model.last).eval()
        words = torch.cat([windows(text, STEPS)[0] for text in texts])
        words = words[torch.randperm(len(words))[: choice.samples]]
        self.network = convert(
            module,
            self.vectors[words].transpose(1, 2),
            params=choice.params,
            inputs=self.inputs,
            levels=choice.levels,
            exponents=choice.exponents,
            max_outside=choice.max_outside,
        )

    def samples(self, words: Tensor) -> Tensor:
        """Bytes [B, SIZE, STEPS] that stand for words [B, STEPS]."""
        return self.rows[words].transpose(1, 2)

    def logits(self, words: Tensor, candidates: Tensor) -> Tensor:
        """Of some words to follow each of the given ones, [B * STEPS, candidates]: the head reads the states of all steps."""
        wiring, states = self.network.wiring, list[Tensor]()
        name = wiring.steps[-1].name
        while name not in wiring.ties:
            name = wiring.by_name[name].inputs[-1]
        steps = {self.network.node(one) for one, first in wiring.ties.items() if first == wiring.ties[name]}
        hooks = [node.register_forward_hook(lambda _, __, result: states.append(result)) for node in steps]
        self.network(self.samples(words) / 255)
        for hook in hooks:
            hook.remove()
        vectors = self.network.head(torch.stack(states, dim=1).flatten(0, 1), 0.0)
        vectors = vectors + self.vectors[words.flatten()] @ self.direct.T
        return vectors @ self.table[candidates].T + self.bias[candidates]

    def answers(self, words: Tensor) -> Tensor:
        """The whole vectors [B, SIZE] after words [B, STEPS]."""
        given: Tensor = self.network(self.samples(words) / 255)
        return given + self.vectors[words[:, -1]] @ self.direct.T

    def fit(self, texts: list[Tensor], *, epochs: int, rate: float, teacher: Language) -> None:
        """Trains with integers and noise, on the answer after every word; scales stand still."""
        network = self.network.train()
        network.freeze(True)

        def settle() -> None:
            network.contract()
            network.place()

        parameters = [*network.parameters(), self.table, self.bias, self.direct]
        fit(parameters, texts, partial(SampledLoss(texts, teacher), self), settle, epochs=epochs, rate=rate)
        network.placed = None
        while not network.contract(last=True):
            pass
        network.eval()


@torch.no_grad()
def perplexity(answers: Callable[[Tensor], Tensor], table: Tensor, bias: Tensor, text: Tensor) -> float:
    """Of the word after every seventh window of a text, by the vectors [B, SIZE] that answer windows [B, STEPS]."""
    words, following = windows(text, 7)
    losses = [
        functional.cross_entropy(answers(part) @ table.T + bias, wanted[:, -1], reduction="sum")
        for part, wanted in zip(words.split(500), following.split(500), strict=True)
    ]
    return math.exp(float(sum(losses)) / len(words))


def corpus() -> tuple[list[str], dict[str, Tensor]]:
    """The vocabulary, and each novel as numbers of words."""
    novels = {novel: read(novel) for novel in (*LEARNED, CHOSEN_BY, TESTED)}
    counted = Counter(word for novel in LEARNED for word in novels[novel])
    vocabulary = ["", *(word for word, _ in counted.most_common(WORDS - 1))]
    return vocabulary, {novel: numbers(words, vocabulary) for novel, words in novels.items()}


class Figures(dict[str, tuple[float, ...]]):
    """Perplexities on the novel that is chosen by and on the test, by network."""

    def __init__(self, texts: dict[str, Tensor]) -> None:
        super().__init__()
        self.texts = [texts[novel] for novel in (CHOSEN_BY, TESTED)]

    def report(self, name: str, answers: Callable[[Tensor], Tensor], table: Tensor, bias: Tensor) -> None:
        """Adds those of a network, and says them."""
        self[name] = tuple(perplexity(answers, table, bias, text) for text in self.texts)
        log.info("%s: perplexity %.1f, test %.1f", name, *self[name])

    def of_float(self, name: str, model: Language) -> None:
        """The same, of a network that is not converted."""
        self.report(name, lambda words: model(words)[:, -1], model.table, model.bias)


def save(folder: Path, name: str, encrypted: Encrypted, vocabulary: list[str], figures: Figures) -> None:
    """What server and client need, and the windows of the test."""
    names = tuple(map(str, range(SIZE)))
    export(encrypted.network, name=name, version="1", params=encrypted.params, classes=names).save(folder / name)
    (folder / "figures.json").write_text(json.dumps(figures), encoding="utf-8")
    vectors, direct = encrypted.vectors.numpy(), encrypted.direct.detach().numpy()
    table, bias = encrypted.table.detach().half().numpy(), encrypted.bias.detach().numpy()
    public = {"vectors": vectors, "direct": direct, "table": table, "bias": bias}
    np.savez_compressed(folder / "table.npz", vocabulary=np.array(vocabulary), **public)
    words, following = windows(figures.texts[-1], 7)
    np.savez_compressed(folder / "test.npz", words=words, samples=encrypted.samples(words), following=following[:, -1])


def fit_teacher(folder: Path, learned: list[Tensor]) -> Language:
    """The LSTM, trained, or as it was kept in the folder."""
    torch.manual_seed(0)
    teacher = lstm()
    fit_float(teacher, learned, epochs=12, dropout=0.4, kept=folder / "lstm.pt")
    return teacher


def train(folder: Path) -> None:
    """Trains an LSTM, from it the network, converts this, trains on, and saves what server and client need."""
    vocabulary, texts = corpus()
    learned, figures = [texts[novel] for novel in LEARNED], Figures(texts)
    teacher = fit_teacher(folder, learned)
    figures.of_float("LSTM", teacher)
    torch.manual_seed(1)
    model = relu_network()
    fit_float(model, learned, epochs=12, dropout=0.25, teacher=teacher, kept=folder / "relu.pt")
    figures.of_float("ReLU", model)
    torch.manual_seed(2)
    encrypted = Encrypted(model, learned, FAST)
    encrypted.fit(learned, epochs=1, rate=1e-4, teacher=teacher)
    figures.report("integers", encrypted.answers, encrypted.table, encrypted.bias)
    save(folder, "words-rnn", encrypted, vocabulary, figures)


def train_lstm(folder: Path, other: str) -> None:
    """Converts the LSTM as it is: sigmoid and tanh are look-ups, and a product of two encrypted values is two of them."""
    vocabulary, texts = corpus()
    learned, figures = [texts[novel] for novel in LEARNED], Figures(texts)
    teacher = fit_teacher(folder, learned)
    figures.of_float("LSTM", teacher)
    torch.manual_seed(3)
    encrypted = Encrypted(teacher, learned, PRECISE)
    figures.report("integers", encrypted.answers, encrypted.table, encrypted.bias)
    save(Path(other), "words-lstm", encrypted, vocabulary, figures)


def ask(folder: Path, url: str, text: str) -> None:
    """Asks a server for the word that follows a text, of which the last 25 words are sent, encrypted."""
    (program,) = folder.glob("*/program.json")
    with np.load(folder / "table.npz") as arrays:
        vocabulary, vectors, direct, table, bias = (
            arrays[name] for name in ("vocabulary", "vectors", "direct", "table", "bias")
        )
    words = numbers(["."] * STEPS + tokens(text), vocabulary.tolist())[-STEPS:].numpy()
    with Client(url, model=program.parent.name) as client:
        (vector,) = client.predict(vectors[words].T[None])
    logits = (vector + direct @ vectors[words[-1]]) @ table.T + bias
    chances = np.exp(logits - logits.max())
    for place in np.argsort(-chances)[:10]:
        log.info("%5.1f %%  %s", 100 * chances[place] / chances.sum(), vocabulary[place] or "(another word)")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    {"train": train, "lstm": train_lstm, "ask": ask}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
