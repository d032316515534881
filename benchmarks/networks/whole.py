"""Networks of ImageNet's size, encrypted from the first pixel to the last logit, on this machine.

Weights are random, statistics of batch norms are those of real images: cost and agreement are those of a trained network of this shape,
accuracy is not asked for. The network is made and simulated in a process of its own, so that peak memory is that of the evaluation.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.crypto.noise import KEY_ID, phases
from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.progress import watched
from ciphershift.benchmarks.harness.served import served_params
from ciphershift.he_layers import evaluate
from ciphershift.he_layers.analysis import cost
from ciphershift.he_layers.crypto import ckks, timing
from ciphershift.he_layers.crypto.ciphertexts import LweCiphertextList
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.program import Program
from ciphershift.he_layers.simulate import CircuitNoise, NoisyCircuit

IMAGES = 24
"""Of which batch norms take their statistics, and the conversion its scales."""
MEASUREMENTS = 15
"""Of the primitives, before the prediction."""
DRAWS = 3
"""Of the simulation."""


def evaluate_whole(model: str, *, side: int, parameter_set: str, threads: int) -> dict[str, Any]:
    """Returns what one encrypted image cost, by chain of layers, beside the prediction and the simulation.

    Of each chain `encrypted_std` and `simulated_std` are standard deviations (1e-3 turns, over its last layer's values) of the difference
    from the noiseless circuit; `logit_noise` is the same of all logits, in logits.

    Args:
        model: a name of benchmarks.networks.imagenet.NETWORKS.
        side: of an image, in pixels.
        parameter_set: that the network is made for.
        threads: of the kernel.
    """
    with tempfile.TemporaryDirectory() as folder:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as elsewhere:
            elsewhere.submit(prepare, Path(folder), model, side, parameter_set).result()
        program = Program.load(Path(folder))
        with np.load(Path(folder) / "simulated.npz") as arrays:
            simulated = dict(arrays)
    served = served_params(program)
    predicted = _predicted(program, served, _times(served, threads))
    keys = ClientKeys.generate(served)
    started = perf_counter()
    image = ckks.encrypt(keys, KEY_ID, simulated["turns"])
    encrypted = perf_counter()
    server_keys = keys.evaluation_keys(threads).expand(threads)
    chains, before, etas = [], 0.0, []
    answer, lookups = None, 0
    for progress in watched(
        evaluate.run(program, server_keys, [[image]], threads=threads), f"{program.name}: encrypted", None
    ):
        if progress.lookups_done:
            etas.append((progress.seconds, progress.seconds * program.lookups / progress.lookups_done))
        state = progress.snapshot and progress.snapshot()
        if state and state.source is not None:
            continue  # within a chain
        chain = {
            "layer": progress.layer,
            "lookups": progress.lookups_done - lookups,
            "predicted_s": round(predicted[progress.layer], 3),
            "measured_s": round(progress.seconds - before, 3),
        }
        if state:
            chain |= _noise(state.values[progress.layer], keys, simulated, progress.layer)
        del state  # and with it what the network reads no more
        chains.append(chain)
        before, lookups, answer = progress.seconds, progress.lookups_done, progress.answer
    assert answer is not None, "the last item has the answer"
    logits = program.logits(ckks.decrypt(keys, answer)[None])[0]
    total = sum(predicted.values())
    late = [guess for seconds, guess in etas if seconds > before / 10]
    return envelope("imagenet", threads=threads, params=served) | {
        "model": model,
        "side": side,
        "lookups": program.lookups,
        "classes": len(logits),
        "predicted_s": round(total, 1),
        "measured_s": round(before, 1),
        "ratio": round(total / before, 3),
        "eta_over_measured": [
            round(min(late) / before, 3),
            round(median(late) / before, 3),
            round(max(late) / before, 3),
        ],
        "encrypt_s": round(encrypted - started, 3),
        "upload_bytes": len(image.to_bytes()),
        "answer_bytes": len(answer.to_bytes()),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "logit_noise": round(float((logits - simulated["clear"]).std()), 4),
        "logit_noise_simulated": round(float((simulated["logits"] - simulated["clear"]).std()), 4),
        "logit_spread": round(float(simulated["clear"].std()), 4),
        "class_encrypted": int(logits.argmax()),
        "class_plain": int(simulated["clear"].argmax()),
        "chains": chains,
    }


def _times(served: ParameterSet, threads: int) -> timing.PrimitiveTimes:
    """Medians over some seconds: one measurement takes half of one, in which a shared machine may be half or twice as fast as it is."""
    measured = []
    for _ in range(MEASUREMENTS):
        timing.forget()
        measured.append(timing.measure(served, threads))
        sleep(1)
    first, *others = (asdict(one) for one in measured)  # counts are the same each time
    return timing.PrimitiveTimes(
        **{name: median([value, *(one[name] for one in others)]) for name, value in first.items()}
    )


def _predicted(program: Program, served: ParameterSet, times: timing.PrimitiveTimes) -> dict[str, float]:
    """Seconds by the last layer of each chain."""
    seconds = {layer.layer: cost.layer_seconds(layer, served, times) for layer in cost.work(program)}
    return {
        chain[-1].layer.name: sum(seconds[stage.layer.name] for stage in chain) for chain in evaluate.chains(program)
    }


def _noise(
    rows: LweCiphertextList, keys: ClientKeys, simulated: dict[str, NDArray[Any]], layer: str
) -> dict[str, float]:
    secrets = {len(key): key for key in (keys.input_secret, keys.big_lwe_keys[0])}
    both = np.concatenate([keys.input_secret, keys.big_lwe_keys[0]])
    secrets[len(both)] = both
    errors = phases(rows, secrets[rows.dimension]) - simulated[f"turns-{layer}"]
    return {
        "encrypted_std": round(1e3 * float((errors - np.rint(errors)).std()), 4),
        "simulated_std": round(1e3 * float(simulated[f"std-{layer}"]), 4),
    }


def prepare(folder: Path, model: str, side: int, parameter_set: str) -> None:
    """Makes the network and what it gives for one image without encryption: a Program and `simulated.npz` in a folder."""
    program, image = make_program(model, side, parameter_set)
    program.save(folder)
    served = served_params(program)
    ends = {chain[-1].layer.name for chain in evaluate.chains(program)}
    turns = np.asarray(program.integers(image).reshape(1, -1) * program.input.delta, dtype=np.float64)
    clear, clear_logits = _draw(program, CircuitNoise.silent(served.polynomial_size), turns, ends, seed=0)
    errors: dict[str, list[float]] = {name: [] for name in ends}
    logits = []
    for seed in range(DRAWS):
        values, drawn = _draw(program, CircuitNoise.predicted(served), turns, ends, seed=seed)
        logits.append(drawn)
        for name in ends:
            difference = values[name] - clear[name]
            errors[name].append(float((difference - np.rint(difference)).std()))
    arrays: dict[str, Any] = {f"turns-{name}": values for name, values in clear.items()}
    arrays |= {f"std-{name}": np.sqrt(np.square(found).mean()) for name, found in errors.items()}
    arrays |= {"turns": turns[0], "clear": clear_logits, "logits": np.stack(logits)}
    np.savez(folder / "simulated.npz", **arrays)


def _draw(
    program: Program, noise: CircuitNoise, turns: NDArray[np.float64], names: set[str], *, seed: int
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """Turns of the named layers' values, and the logits, of one simulated evaluation."""
    circuit = NoisyCircuit(noise, np.random.default_rng(seed))
    kept = {}
    for stage, result in program.walk(circuit, circuit.encrypt(turns), noise.polynomial_size):
        if stage.layer.name in names:
            kept[stage.layer.name] = result.turns[0]
        last = result
    return kept, program.logits(circuit.decrypt(last, program.output))[0]


def make_program(model: str, side: int, parameter_set: str) -> tuple[Program, NDArray[np.uint8]]:
    """A network with random weights, converted on images, and an image that it has not seen, uint8 [1, 3, side, side]."""
    import torch
    from torch import nn

    from ciphershift.benchmarks.networks.imagenet import CLASSES, NETWORKS
    from ciphershift.models.compiler.convert import convert
    from ciphershift.models.compiler.export import export

    torch.manual_seed(0)
    module = NETWORKS[model]()
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):  # PyTorch's own start lets a deep network's signal fade
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # the mean over all that it sees
    seen = crops(IMAGES + 1, side)
    data = torch.from_numpy(seen[:-1]).float() / 255
    with torch.no_grad():
        for start in range(0, len(data), 8):
            module.train()(data[start : start + 8])
    network = convert(module.eval(), data, params=parameter_set)
    names = tuple(str(number) for number in range(CLASSES))
    return export(network.eval(), name=model, version="1", params=parameter_set, classes=names), seen[-1:]


def crops(count: int, side: int) -> NDArray[np.uint8]:
    """Crops of scikit-learn's two photographs (a temple, a flower), uint8 [count, 3, side, side]."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        height, width = photograph.shape[:2]
        size = int(rng.integers(height // 3, height))
        top, left = int(rng.integers(0, height - size)), int(rng.integers(0, width - size))
        crop = Image.fromarray(photograph[top : top + size, left : left + size])
        found.append(np.asarray(crop.resize((side, side))).transpose(2, 0, 1))
    return np.stack(found)
