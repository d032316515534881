"""Accuracy of a network of the zoo on its whole test set, and whether the simulation's noise is that of the encrypted network."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.progress import watched
from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.program import Program
from ciphershift.models import user_module, verification
from ciphershift.models.compiler.inputs import decoded
from ciphershift.models.training import cards, sets
from ciphershift.models.training.recipes import RECIPES
from ciphershift.server.settings import available_cpus

NOISE_IMAGES = 50
NOISE_LOOKUPS = 300_000
"""Look-ups after which no further image is encrypted: some five minutes on two cores. The logits of two images are always compared."""
SIMULATIONS = 20


def measure_accuracy(model: str) -> dict[str, Any]:
    """Returns accuracy_float, accuracy_quantised and accuracy_simulated on all test images, and the logits' noise on the first few.

    Encrypted are NOISE_IMAGES, or as many as make NOISE_LOOKUPS look-ups. The noise of a logit is its difference from the plaintext
    network's: `encrypted_std` over the encrypted images, `simulated_std` over as many simulated ones, drawn SIMULATIONS times; both in
    units of the logits' own standard deviation over the images.
    """
    folder = cards.ZOO / model
    program = Program.load(folder)
    card = cards.read(folder)
    splits = sets.of_card(card)
    test = splits.test
    module = RECIPES[model].module() if model in RECIPES else user_module.load_module(card["module"])
    baseline = decoded(cards.load_baseline(module, folder), splits.inputs, test.images.shape[1])
    baseline = cards.as_held_against(baseline, card["training"])
    accuracies = cards.measure(program, baseline, watched(test.parts(cards.PART), f"{model}: test images"))
    encrypted_images = min(NOISE_IMAGES, max(2, NOISE_LOOKUPS // program.lookups))
    return {
        "model": model,
        "images": len(test.labels),
        **asdict(accuracies),
        "logit_noise": logit_noise(program, test.images[:encrypted_images]),
    }


def logit_noise(program: Program, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Returns encrypted_std, simulated_std and their ratio, which is None where the simulation has no noise, as in the exact profile.

    Args:
        program: the network.
        images: uint8 [B, C, H, W], two or more.
    """
    plain = simulate.plain(program, images) * program.output.scales
    repeated = np.concatenate([images] * SIMULATIONS)
    simulated = simulate.run(program, params.get(program.params), repeated, np.random.default_rng(0))
    rows = verification.encrypted_logits(program, images, threads=available_cpus())
    encrypted = np.stack(list(watched(rows, f"{program.name}: encrypted logits", len(images))))
    signal = float(plain.std(axis=0).mean())
    encrypted_std = float((encrypted - plain).std()) / signal
    simulated_std = float((simulated - np.concatenate([plain] * SIMULATIONS)).std()) / signal
    return {
        "images": len(images),
        "encrypted_std": round(encrypted_std, 4),
        "simulated_std": round(simulated_std, 4),
        "ratio": round(encrypted_std / simulated_std, 3) if simulated_std else None,
    }
