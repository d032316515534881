"""The cost model against the clock: predicted and measured seconds of every layer of one network; and parameter sets against each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import numpy as np

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.progress import watched
from ciphershift.benchmarks.harness.served import served_params
from ciphershift.he_layers import evaluate
from ciphershift.he_layers.analysis import cost
from ciphershift.he_layers.crypto import ckks, params, timing
from ciphershift.he_layers.crypto.ciphertexts import ciphertext_type
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.program import Program
from ciphershift.server.settings import Settings


class Evaluation:
    """One image of a network under a parameter set, predicted and measured round by round."""

    def __init__(self, program: Program, parameter_set: ParameterSet, threads: int) -> None:
        """Makes keys and encrypts an image of zeros, which takes as long as any other.

        Raises:
            WrongParamsError: the set cannot stand in for the program's own.
        """
        self.program, self.params, self.threads = program, parameter_set, threads
        keys = ClientKeys.generate(parameter_set)
        self.server_keys = keys.evaluation_keys(threads).expand(threads)
        zeros = np.zeros(int(np.prod(program.input.shape)))
        self.image = ckks.encrypt(keys, "00" * 32, zeros, ciphertext_type(program.lookups))
        evaluate.check_images(program, parameter_set, [self.image])
        self.chains = [
            [stage.layer.name for stage in chain] for chain in evaluate.chains(program)
        ]  # evaluated together
        self.predicted: list[list[float]] = []  # of each round: of each chain, and the sum
        self.measured: list[list[float]] = []

    def once(self) -> None:
        """One round."""
        timing.forget()
        times = timing.measure(self.params, self.threads)
        work = {layer.layer: layer for layer in cost.work(self.program)}
        seconds = [sum(cost.layer_seconds(work[name], self.params, times) for name in chain) for chain in self.chains]
        self.predicted.append([*seconds, sum(seconds)])
        steps = evaluate.run(self.program, self.server_keys, [[self.image]], threads=self.threads)
        ends = list({progress.layer: progress.seconds for progress in steps}.values())  # of each chain, its last slice
        self.measured.append([*np.diff([0.0, *ends]), ends[-1]])

    def result(self) -> dict[str, Any]:
        """Medians."""
        guesses, clock = (
            [median(column) for column in zip(*of, strict=True)] for of in (self.predicted, self.measured)
        )
        return {
            "program": self.program.digest,
            "predicted_seconds": round(guesses[-1], 4),
            "measured_seconds": round(clock[-1], 4),
            "ratio": round(guesses[-1] / clock[-1], 3),
            "repetitions": len(self.measured),
            "layers": [
                {"layer": " ".join(chain), "predicted_seconds": round(guess, 4), "measured_seconds": round(found, 4)}
                for chain, guess, found in zip(self.chains, guesses, clock, strict=False)
            ],
        }


def compare_with_prediction(model: str, *, repetitions: int) -> dict[str, Any]:
    """Returns predicted and measured seconds of the server for one image, in all and by layer (medians), and their ratio.

    Primitives are timed before each evaluation, so that a machine that changes its speed meanwhile changes both sides alike.
    """
    program = _program(model)
    (evaluation,) = _rounds(program, [served_params(program)], repetitions)
    return envelope("cost", params=evaluation.params) | {"model": model} | evaluation.result()


def compare_sets(model: str, names: Sequence[str], *, repetitions: int) -> Iterator[dict[str, Any]]:
    """Yields, for each parameter set, seconds of the server for one image, and their ratio to the first set's.

    Sets take turns in every round; ratios are medians of those of a round, beside the least and the greatest.

    Raises:
        UnknownParamsError, WrongParamsError: a name is not registered, or the set cannot stand in for the network's own.
    """
    evaluations = _rounds(_program(model), [params.get(name) for name in names], repetitions)
    for evaluation in evaluations:
        ratios = [mine[-1] / its[-1] for mine, its in zip(evaluation.measured, evaluations[0].measured, strict=True)]
        found = evaluation.result()
        yield envelope("cost_by_set", params=evaluation.params) | {
            "model": model,
            "program": found["program"],
            "ratio_to": names[0],
            "measured_seconds": found["measured_seconds"],
            "ratio": round(median(ratios), 3),
            "least_ratio": round(min(ratios), 3),
            "greatest_ratio": round(max(ratios), 3),
            "predicted_over_measured": found["ratio"],
            "repetitions": repetitions,
        }


def _program(model: str) -> Program:
    return Program.load(Settings().models / model)


def _rounds(program: Program, sets: Sequence[ParameterSet], repetitions: int) -> list[Evaluation]:
    evaluations = [Evaluation(program, chosen, Settings().engine_url.threads) for chosen in sets]
    for _ in watched(range(repetitions), f"{program.name}: evaluations"):
        for evaluation in evaluations:
            evaluation.once()
    return evaluations
