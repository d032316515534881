"""The cheapest parameter sets for a network of the zoo, with predicted time, noise, key bytes and security."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.progress import watched
from ciphershift.he_layers.analysis import noise_budget
from ciphershift.he_layers.analysis import search as parameter_search
from ciphershift.he_layers.crypto import noise, params, timing
from ciphershift.he_layers.program import Program
from ciphershift.server.settings import Settings


def find_parameter_sets(model: str, *, noise_factor: float, count: int) -> Iterator[dict[str, Any]]:
    """Yields one object per candidate, cheapest first."""
    settings = Settings()
    program = Program.load(settings.models / model)
    found = parameter_search.search(
        program,
        params.get(program.params),
        lambda candidate: timing.measure(candidate, settings.engine_url.threads),
        noise_factor=noise_factor,
        count=count,
        watch=lambda sets: watched(sets, "parameter sets"),
    )
    for candidate in found:
        chosen = candidate.params
        stages = candidate.stages
        yield envelope("search", threads=settings.engine_url.threads) | {
            "model": model,
            "profile": program.profile,
            "predicted_seconds": round(candidate.seconds, 4),
            "predicted_bootstrap_us": round(candidate.bootstrap_us, 1),
            "input_noise": max(stage.std_dev for stage in stages[:-1]),
            "lookup_error_4bit": noise.lookup_error(chosen),
            "log2_failure_per_image": noise_budget.log2_failure(list(stages)),
            "key_bytes": candidate.key_bytes,
            "security_bits": round(candidate.bits, 1),
            "glwe": [chosen.glwe_dimension, chosen.polynomial_size, chosen.glwe_log2_std_dev],
            "lwe": [chosen.lwe_dimension, chosen.lwe_log2_std_dev],
            "grouping_factor": chosen.grouping_factor,
            "pbs": [chosen.pbs.base_log, chosen.pbs.levels],
            "key_switch": [chosen.key_switch.base_log, chosen.key_switch.levels],
            "input_ring": [chosen.input_ring.ring_degree, chosen.input_ring.modulus, chosen.input_body_bits],
            "answer_ring": [chosen.answer_ring.ring_degree, chosen.answer_ring.modulus],
            "bsk_body_bits": chosen.bsk_body_bits,
        }
