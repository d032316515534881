"""A device of torch against this machine's CPU: seconds an image, batches, memory and agreement of whole networks; one JSON file.

The file is written anew after every figure, so that what was measured is there whatever happens then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ciphershift.benchmarks.crypto import gpu as primitives
from ciphershift.benchmarks.crypto.gpu import KEY_ID, Workbench
from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.he_layers import evaluate, simulate
from ciphershift.he_layers.crypto import ckks, noise, params
from ciphershift.he_layers.crypto.ciphertexts import CkksCiphertext, PackedAnswer, ciphertext_type
from ciphershift.he_layers.gpu import device as devices
from ciphershift.he_layers.gpu import evaluate as on_device
from ciphershift.he_layers.gpu.keys import DeviceKeys
from ciphershift.he_layers.gpu.nvrtc import KernelError
from ciphershift.he_layers.program import Program
from ciphershift.server.settings import available_cpus

COUNTS, QUICK_COUNTS = (256, 2048, 16384), (8,)
BATCH = 64
LARGE = "cifar10-she"
MODELS, QUICK_MODELS = ("mnist-tiny", "mnist-she", LARGE), ("mnist-tiny",)
NOISE_SAMPLES, QUICK_NOISE_SAMPLES = 4096, 16


class Record:
    """The JSON object that grows, and the time that is left."""

    def __init__(self, target: Path, seconds: float, shared: dict[str, Any]) -> None:
        """Args: seconds: after which nothing new is begun."""
        self.target, self.values, self._started, self._seconds = target, shared, time.perf_counter(), seconds
        self._write()

    def add(self, name: str, measure: Callable[[], Any], *, needs: float = 0.0) -> None:
        """Measures something, unless less than ``needs`` seconds are left; what fails is written down with its reason."""
        elapsed = time.perf_counter() - self._started
        if elapsed + needs > self._seconds:
            self.values[name] = {"skipped": f"{elapsed:.0f} of {self._seconds:.0f} s are over"}
        else:
            try:
                self.values[name] = measure()
            except (RuntimeError, KernelError) as error:  # torch's and the driver's
                self.values[name] = {"failed": f"{type(error).__name__}: {error}"}
        self.values["elapsed_s"] = round(time.perf_counter() - self._started, 1)
        self._write()

    def _write(self) -> None:
        aside = self.target.with_suffix(".tmp")
        aside.write_text(json.dumps(self.values, indent=2) + "\n", encoding="utf-8")
        aside.replace(self.target)


def measure(
    models: Path,
    images_of: Callable[[str], NDArray[np.uint8]],
    target: Path,
    *,
    device_name: str,
    seconds: float,
    quick: bool,
) -> dict[str, Any]:
    """Measures what there is time for.

    Args:
        models: folder of Programs.
        images_of: test images of a network.
        target: of the JSON object.
        device_name: torch's, such as ``cuda:0``.
        seconds: after which nothing new is begun.
        quick: few samples and the smallest network, for a machine without a GPU.
    """
    threads = available_cpus()
    device = devices.find(device_name, threads=threads)
    programs = {name: Program.load(models / name) for name in (QUICK_MODELS if quick else MODELS)}
    own, default = params.get(programs["mnist-tiny"].params), params.get(params.DEFAULT)
    parameter_set = default if noise.may_stand_in(default, own) else own
    record = Record(target, seconds, envelope("gpu", params=parameter_set) | describe(device) | {"quick": quick})
    bench = Workbench(parameter_set, device, threads)
    record.add("keys", lambda: {"bytes": bench.keys.nbytes, "load_s": round(bench.load_seconds, 3)})
    record.add("correctness", lambda: primitives.correctness(bench, QUICK_NOISE_SAMPLES if quick else NOISE_SAMPLES))
    for name, keys in bench.variants.items():
        for count in QUICK_COUNTS if quick else COUNTS:
            record.add(f"lookups_{name}_{count}", partial(primitives.lookups, bench, keys, count))
    record.add("lookups_host", partial(primitives.lookups_on_host, bench, QUICK_COUNTS[-1] if quick else COUNTS[1]))
    networks = Networks(bench, programs, images_of, warm=not quick)
    for model in programs:
        for name, keys in bench.variants.items():
            record.add(f"{model}_{name}", partial(networks.images, model, keys, 1), needs=10)
        record.add(f"{model}_host", partial(networks.image_on_host, model), needs=40 if model == LARGE else 10)
    if not quick:
        for count in COUNTS:
            record.add(f"rotations_fused_by_block_{count}", partial(primitives.blocks, bench, count), needs=5)
        for model in programs:
            for name, keys in bench.variants.items():
                needs = networks.predicted(model, keys, BATCH)
                record.add(f"{model}_{name}_batch", partial(networks.images, model, keys, BATCH), needs=needs)
    return record.values


def describe(device: torch.device) -> dict[str, Any]:
    """The card, and what drives it."""
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip}
    if device.type != "cuda":
        return {"device": device.type, **versions}
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": properties.name,
        "device_memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        **versions,
    }


class Networks:
    """Networks of the zoo on encrypted test images."""

    def __init__(
        self,
        bench: Workbench,
        programs: Mapping[str, Program],
        images_of: Callable[[str], NDArray[np.uint8]],
        *,
        warm: bool,
    ) -> None:
        """Args: warm: whether one image is evaluated once before it is measured."""
        self.bench, self.programs, self._images_of, self._warm = bench, programs, images_of, warm
        self._seconds: dict[tuple[str, bool], float] = {}

    def images(self, name: str, keys: DeviceKeys, count: int) -> dict[str, Any]:
        """Seconds for ``count`` images handed over at once, memory, and how many predictions are the plaintext network's."""
        program, encrypted, plain = self._prepare(name, count)
        together = on_device.images_together(program, self.bench.device)
        cuda = self.bench.device.type == "cuda"

        def evaluate_all() -> list[PackedAnswer]:
            answers: list[PackedAnswer] = []
            for start in range(0, count, together):
                (*_, last) = on_device.run(program, keys, [[image] for image in encrypted[start : start + together]])
                answers += last.answers
            return answers

        if count == 1 and self._warm:
            evaluate_all()  # tables, plans and reserves of memory
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.bench.device)
        started = time.perf_counter()
        answers = evaluate_all()
        seconds = time.perf_counter() - started
        if count == 1:
            self._seconds[name, keys.fused is not None] = seconds
        return {
            "images": count,
            "together": min(count, together),
            "seconds": round(seconds, 4),
            "seconds_an_image": round(seconds / count, 4),
            "lookups_per_second": round(program.lookups * count / seconds),
            "agree": int((self._predictions(program, answers) == plain).sum()),
            "peak_memory_bytes": torch.cuda.max_memory_allocated(self.bench.device) if cuda else None,
        }

    def image_on_host(self, name: str) -> dict[str, Any]:
        """Seconds for one image by the native kernel on all threads."""
        program, encrypted, plain = self._prepare(name, 1)
        started = time.perf_counter()
        (*_, last) = evaluate.run(program, self.bench.server, [encrypted], threads=self.bench.threads)
        seconds = time.perf_counter() - started
        return {"seconds": round(seconds, 3), "agree": int((self._predictions(program, last.answers) == plain).sum())}

    def predicted(self, name: str, keys: DeviceKeys, count: int) -> float:
        """Seconds that so many images should take at most, from one."""
        return 1.2 * count * self._seconds.get((name, keys.fused is not None), 60.0)

    def _prepare(self, name: str, count: int) -> tuple[Program, list[CkksCiphertext], NDArray[np.int64]]:
        program = self.programs[name]
        available = self._images_of(name)
        images = available[np.arange(count) % len(available)]
        levels = program.integers(images).reshape(count, -1).astype(np.float64)
        kind = ciphertext_type(program.lookups)
        encrypted = [ckks.encrypt(self.bench.client, KEY_ID, row * program.input.delta, kind) for row in levels]
        return program, encrypted, simulate.plain(program, images).argmax(axis=1)

    def _predictions(self, program: Program, answers: Sequence[PackedAnswer]) -> NDArray[np.int64]:
        logits = np.stack([program.logits(ckks.decrypt(self.bench.client, answer)) for answer in answers])
        return np.asarray(logits.argmax(axis=1))
