"""A network under other parameter sets: noise, simulated accuracy, predicted time and key bytes of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.he_layers import simulate
from ciphershift.he_layers.analysis import noise_budget, search
from ciphershift.he_layers.crypto import noise, params, timing
from ciphershift.he_layers.program import Program
from ciphershift.models.training.data import Split
from ciphershift.server.settings import Settings

FACTORS = (0.5, 0.7, 0.85, 1.01, 1.25, 1.6, 2.0, 3.0)
"""Noise that a set may have, in multiples of that of the network's own set."""


def simulate_parameter_sets(
    model: str, split: Split, *, factors: Sequence[float] = FACTORS
) -> Iterator[dict[str, Any]]:
    """Yields, for each factor, the cheapest set of at least 132 bits with at most that noise; the network is not trained again.

    Args:
        model: in the zoo, of the fast profile.
        split: images that the accuracy is simulated on, with their labels.
        factors: see FACTORS.
    """
    program = Program.load(Settings().models / model)
    base, threads = params.get(program.params), Settings().engine_url.threads
    timing.forget()  # the machine may have changed its speed since
    plain = simulate.plain(program, split.images).argmax(axis=1)
    for factor in factors:
        found = search.search(
            program, base, lambda candidate: timing.measure(candidate, threads), noise_factor=factor, count=1
        )
        for candidate in found:
            chosen = candidate.params
            logits = simulate.run(program, chosen, split.images, np.random.default_rng(0)).argmax(axis=1)
            yield envelope("parameters", threads=threads, params=chosen) | {
                "model": model,
                "noise_factor": factor,
                "params": f"k {chosen.glwe_dimension}, N {chosen.polynomial_size}, n {chosen.lwe_dimension}",
                "input_noise": max(stage.std_dev for stage in candidate.stages[:-1]),
                "own_input_noise": max(stage.std_dev for stage in noise_budget.of_program(program, base)[:-1]),
                "lookup_error_4bit": noise.lookup_error(chosen),
                "predicted_s": round(candidate.seconds, 4),
                "key_bytes": candidate.key_bytes,
                "images": len(split.labels),
                "accuracy_simulated": float((logits == split.labels).mean()),
                "agreement_simulated": float((logits == plain).mean()),
            }
